//! Requests and replies.
//!
//! A request is looked at with `MSG_PEEK`, handled, committed, answered, and only then taken
//! off the socket. A successor finds what its predecessor had not finished.

use crate::SocketRef;
use crate::epoll::Watched;
use crate::error::SessionError;
use crate::session::{Attached, Session};
use crate::sessions::{Event, Sessions};
use crate::shadow;
use crate::state::phase;
use crate::store::FdStore;
use abi::codec::{self, MAX_MESSAGE};
use abi::session::{Answer, Op, Reply, Request, SocketId};
use abi::{LAYOUT_VERSION, RegionId};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, recv, sendmsg};
use shm::SessionMemory;
use shm::crash::{self, Point};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Whose.
    pub region: RegionId,
    /// Its number; the same one may come again after a restart.
    pub id: u64,
    /// What is wanted; never `Hello`.
    pub op: Op,
}

/// What will be sent when the turn is committed.
#[derive(Debug)]
pub(crate) struct Outgoing {
    region: RegionId,
    /// None: the predecessor has replied already; the request only needs taking.
    reply: Option<Reply>,
    fds: Vec<OwnedFd>,
    /// Close the session after it.
    last: bool,
}

impl Sessions {
    pub(crate) fn take_request(
        &mut self,
        index: usize,
        store: &mut dyn FdStore,
        events: &mut Vec<Event>,
    ) {
        let mut buffer = std::mem::take(&mut self.scratch);
        buffer.resize(MAX_MESSAGE, 0);
        let Some(session) = self.session_at(index) else {
            return;
        };
        let (region, live) = (session.region, session.attached.is_some());
        let Some(fd) = session.request.as_ref().filter(|_| !session.calling) else {
            self.scratch = buffer;
            return;
        };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let got = recv(fd.as_raw_fd(), &mut buffer, flags);
        let request = match got {
            Err(Errno::EAGAIN | Errno::EINTR) => {
                self.scratch = buffer;
                return;
            }
            Ok(0) | Err(_) => {
                self.scratch = buffer;
                self.hang_up_session(index, store);
                return;
            }
            Ok(n) => buffer
                .get(..n)
                .and_then(|b| codec::decode::<Request>(b).ok()),
        };
        self.scratch = buffer;
        self.tally.calls += 1;
        if let Some(session) = self.session_at_mut(index) {
            session.calling = true;
        }
        crash::reach(Point::RequestTaken);
        match request {
            Some(Request {
                id,
                op: Op::Hello { version },
            }) => {
                let answer = self.hello(index, version, store);
                let (result, fds) = match answer {
                    Ok((answer, fds)) => (Ok(answer), fds),
                    Err(errno) => (Err(errno), Vec::new()),
                };
                self.queue(region, Some(Reply { id, result }), fds, false);
            }
            Some(Request { id, op }) if live => {
                if matches!(op, Op::Socket { .. }) && self.replied_already(index, id) {
                    self.queue(region, None, Vec::new(), false);
                } else {
                    events.push(Event::Call(Call { region, id, op }));
                }
            }
            // Not a request, or not yet in order: this session is over, and no other.
            other => {
                self.tally.malformed += 1;
                let id = other.map_or(0, |r| r.id);
                let reply = Reply {
                    id,
                    result: Err(libc::EPROTO),
                };
                self.queue(region, Some(reply), Vec::new(), true);
            }
        }
    }

    fn queue(&mut self, region: RegionId, reply: Option<Reply>, fds: Vec<OwnedFd>, last: bool) {
        self.outgoing.push(Outgoing {
            region,
            reply,
            fds,
            last,
        });
    }

    /// Whether a predecessor has sent the reply to this `Socket` request: it recorded the slot,
    /// and the application's end, which travelled in the reply, is alive. Had it died before
    /// sending, that end died with it and the shadow hung up.
    fn replied_already(&self, index: usize, id: u64) -> bool {
        let Some(session) = self.session_at(index) else {
            return false;
        };
        let r = &session.record;
        r.socket_request == id
            && session.used(r.socket_slot).is_some_and(|s| {
                s.incarnation == r.socket_incarnation
                    && s.shadow.as_ref().is_some_and(|shadow| !shadow.is_hung_up())
            })
    }

    fn hello(
        &mut self,
        index: usize,
        version: u32,
        store: &mut dyn FdStore,
    ) -> Result<(Answer, Vec<OwnedFd>), i32> {
        if version != LAYOUT_VERSION {
            return Err(libc::EPROTONOSUPPORT);
        }
        let errno = |e: std::io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        let share = self.params.share;
        let bell = self.bell.try_clone().map_err(errno)?;
        let session = self.session_at_mut(index).ok_or(libc::EBADF)?;
        let region = session.region;
        if session.attached.is_none() {
            let attached = Attached::make(session).map_err(|e| e.errno())?;
            session.record.phase = phase::LIVE;
            store.store(Session::memory_key(region), attached.fd.as_fd());
            if share {
                store.share_region(region, attached.fd.as_fd());
            }
            session.attached = Some(attached);
            let record = session.record;
            self.state.commit(index, &record);
            crash::reach(Point::SessionMade);
            self.activate(index);
        }
        let session = self.session_at(index).ok_or(libc::EBADF)?;
        let memory = session
            .attached
            .as_ref()
            .ok_or(libc::EBADF)?
            .fd
            .try_clone()
            .map_err(errno)?;
        Ok((Answer::Session { region: region.0 }, vec![memory, bell]))
    }

    /// Answers a call with a result or an errno.
    pub fn answer(&mut self, call: &Call, result: Result<Answer, i32>) {
        self.queue(
            call.region,
            Some(Reply {
                id: call.id,
                result,
            }),
            Vec::new(),
            false,
        );
    }

    /// Answers a `Socket` call with a socket that [`Sessions::create`] made: makes its shadow
    /// fd, stores the transport's end and sends the other.
    ///
    /// # Errors
    /// When the kernel has no descriptors left; then answer with the error and free the socket.
    pub fn answer_socket(
        &mut self,
        call: &Call,
        socket: SocketRef,
        store: &mut dyn FdStore,
    ) -> Result<(), SessionError> {
        let incarnation = self.incarnation(socket).ok_or(SessionError::NoSuchSocket)?;
        let theirs = self.make_shadow(socket, store)?;
        let index = crate::state::index(socket.region);
        if let Some(session) = self.session_at_mut(index) {
            session.record.socket_request = call.id;
            session.record.socket_slot = socket.slot;
            session.record.socket_incarnation = incarnation;
            let record = session.record;
            self.state.commit(index, &record);
        }
        let id = SocketId {
            slot: socket.slot,
            incarnation,
        };
        let reply = Reply {
            id: call.id,
            result: Ok(Answer::Socket(id)),
        };
        self.queue(call.region, Some(reply), vec![theirs], false);
        Ok(())
    }

    pub(crate) fn incarnation(&self, socket: SocketRef) -> Option<u32> {
        self.session(socket.region)?
            .used(socket.slot)
            .map(|s| s.incarnation)
    }

    /// Makes the socket's pair, stores and watches the transport's end, answers the other.
    pub(crate) fn make_shadow(
        &mut self,
        socket: SocketRef,
        store: &mut dyn FdStore,
    ) -> Result<OwnedFd, SessionError> {
        let incarnation = self.incarnation(socket).ok_or(SessionError::NoSuchSocket)?;
        let premade = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot)?.premade.take());
        let stored = premade.is_some();
        let (ours, theirs) = match premade {
            Some(pair) => pair,
            None => shadow::pair().map_err(SessionError::system("socketpair"))?,
        };
        let index = crate::state::index(socket.region);
        let slot = socket.slot;
        let what = Watched::Shadow {
            index,
            slot,
            incarnation,
        };
        self.watch.add(ours.as_fd(), what)?;
        if !stored {
            let key = Session::shadow_key(socket.region, slot, incarnation);
            store.store(key, ours.as_fd());
        }
        if let Some(s) = self
            .session_mut(socket.region)
            .and_then(|s| s.used_mut(socket.slot))
        {
            s.shadow = Some(ours);
            s.handed = true;
        }
        crash::reach(Point::ShadowMade);
        Ok(theirs)
    }

    pub(crate) fn send_replies(&mut self, store: &mut dyn FdStore) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        for out in outgoing.drain(..) {
            let Some(session) = self.session_mut(out.region) else {
                continue;
            };
            session.calling = false;
            let Some(fd) = session.request.as_ref().map(AsRawFd::as_raw_fd) else {
                continue;
            };
            let sent = match out.reply.as_ref().map(codec::encode) {
                Some(Ok(bytes)) => {
                    let raw: Vec<_> = out.fds.iter().map(AsRawFd::as_raw_fd).collect();
                    let rights = [ControlMessage::ScmRights(&raw)];
                    let cmsgs = if raw.is_empty() { &[][..] } else { &rights[..] };
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    sendmsg::<UnixAddr>(fd, &[IoSlice::new(&bytes)], cmsgs, flags, None).is_ok()
                }
                Some(Err(_)) => false,
                None => true,
            };
            crash::reach(Point::ReplySent);
            // Take the request; what does not fit the buffer goes with it.
            let _ = recv(fd, &mut [0u8; 8], MsgFlags::MSG_DONTWAIT);
            crash::reach(Point::RequestConsumed);
            // An application that does not read its replies, or is gone.
            if !sent || out.last {
                self.hang_up_session(crate::state::index(out.region), store);
            }
        }
        self.outgoing = outgoing;
        // The next request is often there already.
        self.hinted = true;
    }
}

impl Attached {
    fn make(session: &Session) -> Result<Self, SessionError> {
        let layout = session.record.layout();
        let fd = shm::session::create("strata-session", layout)?;
        Ok(Self {
            memory: SessionMemory::attach_as(&fd, layout)?,
            fd,
        })
    }

    pub(crate) fn restore(session: &Session, fd: OwnedFd) -> Result<Self, SessionError> {
        Ok(Self {
            memory: SessionMemory::attach_as(&fd, session.record.layout())?,
            fd,
        })
    }
}
