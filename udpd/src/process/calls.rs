//! Requests of applications.
//!
//! Each changed socket's record carries the number of the request that changed it last. Should
//! a predecessor have died between its commit and taking the request off the socket, the request
//! comes again, and is answered without being done again.

use super::Udpd;
use super::release::Show;
use crate::engine::Errno;
use crate::engine::record::kind_of;
use abi::session::{Answer, Op, SocketId, SocketKind};
use session::{Call, SessionError};

impl Udpd {
    pub(super) fn call(&mut self, call: &Call, store: &mut runtime::StoreClient) {
        let result = match &call.op {
            Op::Socket { v6, kind } => match self.socket(call, *v6, *kind, store) {
                Ok(()) => return,
                Err(errno) => Err(errno),
            },
            Op::Bind(id, address) => self.change(call, *id, |this, index| {
                this.engine.bind(index, *address, &this.fib)
            }),
            Op::Connect(id, peer) => self.change(call, *id, |this, index| {
                let result = this.engine.connect(index, *peer, &this.fib);
                this.shows.push((index, Show::Peer));
                result
            }),
            Op::SetOption(id, option) => self.change(call, *id, |this, index| {
                this.engine.set_option(index, option)?;
                this.shows.push((index, Show::Limits));
                Ok(())
            }),
            Op::GetOption(id, name) => self
                .index(call, *id)
                .and_then(|index| self.engine.option(index, *name))
                .map(Answer::Option),
            Op::LocalAddr(id) => self.index(call, *id).and_then(|index| {
                let s = self.engine.get(index).ok_or(libc::EBADF)?;
                Ok(Answer::Address(s.shown_endpoint(&s.record.local)))
            }),
            Op::PeerAddr(id) => self.index(call, *id).and_then(|index| {
                let s = self.engine.get(index).ok_or(libc::EBADF)?;
                if !s.is_connected() {
                    return Err(libc::ENOTCONN);
                }
                Ok(Answer::Address(s.shown_endpoint(&s.record.peer)))
            }),
            Op::Listen(..) | Op::ConnectWithData(..) => Err(libc::EOPNOTSUPP),
            Op::TcpInfo(_) => Err(libc::ENOPROTOOPT),
            // What was sent is gone: nothing waits for it.
            Op::Closing(_) => Err(libc::EBADF),
            // Answered by the session layer.
            Op::Hello { .. } => Err(libc::EPROTO),
        };
        self.sessions.answer(call, result);
    }

    fn index(&self, call: &Call, id: SocketId) -> Result<u32, Errno> {
        self.sessions.resolve(call.region, id).ok_or(libc::EBADF)
    }

    /// A request that changes a socket: done once, answered as often as it comes.
    fn change(
        &mut self,
        call: &Call,
        id: SocketId,
        f: impl FnOnce(&mut Self, u32) -> Result<(), Errno>,
    ) -> Result<Answer, Errno> {
        let index = self.index(call, id)?;
        if let Some(socket) = self.engine.get(index) {
            self.watch.works_on(index, &socket.record);
        }
        if !self.engine.done_before(index, call.id) {
            f(self, index)?;
            self.engine.note_request(index, call.id);
        }
        Ok(Answer::Done)
    }

    fn socket(
        &mut self,
        call: &Call,
        v6: bool,
        kind: SocketKind,
        store: &mut runtime::StoreClient,
    ) -> Result<(), Errno> {
        let kind = kind_of(kind)?;
        let errno = |e: SessionError| e.errno();
        let new = self.sessions.create(call.region).map_err(errno)?;
        let opened = self
            .engine
            .open(kind, v6, new.socket, new.incarnation, call.id);
        let result = opened.and_then(|index| {
            self.sessions.set_owner(new.socket, index);
            self.sessions
                .answer_socket(call, new.socket, store)
                .map_err(errno)
        });
        if result.is_err() {
            if let Ok(index) = opened {
                self.engine.close(index);
            }
            self.sessions.free(new.socket, store);
        }
        result
    }
}
