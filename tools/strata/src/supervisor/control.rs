//! The control channel to one incarnation of a daemon: two threads around ipc-channel.
//!
//! ipc-channel has nothing to poll, blocks when its peer does not read, and panics on malformed
//! input. So one thread receives and one sends; the main loop sees a queue and an eventfd. A
//! panic, a closed channel or a full queue counts as the daemon's failure.

use abi::ServiceId;
use abi::control::{FromDaemon, ToDaemon};
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};
use nix::sys::eventfd::{EfdFlags, EventFd};
use runtime::control::Handshake;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Messages that may wait to be sent to a daemon.
const WAITING: usize = 256;

/// What happened on a control channel.
#[derive(Debug)]
pub(super) enum What {
    /// The daemon said something.
    Said(FromDaemon),
    /// The channel is closed or broken; nothing more will come.
    Closed(String),
}

/// Something that happened on the control channel of an incarnation of a service.
#[derive(Debug)]
pub(super) struct Event {
    /// Of which service.
    pub(super) service: ServiceId,
    /// Of which incarnation; events of a dead one may still be under way.
    pub(super) incarnation: u32,
    /// What.
    pub(super) what: What,
}

/// Where the threads of all daemons put their events, with a descriptor to poll.
#[derive(Debug)]
pub(super) struct Inbox {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
    bell: Arc<EventFd>,
}

impl Inbox {
    pub(super) fn new() -> nix::Result<Self> {
        let (sender, receiver) = channel();
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            sender,
            receiver,
            bell: Arc::new(bell),
        })
    }

    /// Takes what has come.
    pub(super) fn take(&self) -> Vec<Event> {
        let _ = self.bell.read();
        self.receiver.try_iter().collect()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// One thread's access to the inbox.
#[derive(Debug, Clone)]
struct Outlet {
    service: ServiceId,
    incarnation: u32,
    sender: Sender<Event>,
    bell: Arc<EventFd>,
}

impl Outlet {
    fn put(&self, what: What) {
        let event = Event {
            service: self.service,
            incarnation: self.incarnation,
            what,
        };
        if self.sender.send(event).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}

/// The supervisor's side of a control channel.
#[derive(Debug)]
pub(super) struct Control {
    server: String,
    queue: SyncSender<ToDaemon>,
    /// The daemon has connected, or the thread has ended without.
    met: Arc<AtomicBool>,
}

impl Control {
    /// Waits, in a thread, for a daemon to connect.
    pub(super) fn open(
        inbox: &Inbox,
        service: ServiceId,
        incarnation: u32,
        name: &str,
    ) -> io::Result<Self> {
        let (server, server_name) = IpcOneShotServer::<Handshake>::new()?;
        let (queue, waiting) = sync_channel(WAITING);
        let outlet = Outlet {
            service,
            incarnation,
            sender: inbox.sender.clone(),
            bell: Arc::clone(&inbox.bell),
        };
        let met = Arc::new(AtomicBool::new(false));
        let meets = Arc::clone(&met);
        thread::Builder::new()
            .name(format!("control-{name}"))
            .spawn(move || {
                let last = outlet.clone();
                let talk = || converse(server, waiting, &outlet, &meets);
                let end = catch_unwind(AssertUnwindSafe(talk))
                    .unwrap_or_else(|_| "malformed message".to_owned());
                last.put(What::Closed(end));
            })?;
        Ok(Self {
            server: server_name,
            queue,
            met,
        })
    }

    /// What the daemon connects to.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Queues a message. False when the daemon has not taken the last [`WAITING`], or is gone:
    /// its failure either way.
    pub(super) fn send(&self, message: ToDaemon) -> bool {
        self.queue.try_send(message).is_ok()
    }
}

impl Drop for Control {
    /// Lets the receiving thread go, should the daemon have died before it connected: accepting
    /// never times out, but ends with a connection that says nothing.
    fn drop(&mut self) {
        // Not otherwise: ipc-channel leaks a socket for each connection that fails.
        if self.met.load(Ordering::Acquire) {
            return;
        }
        let _ = IpcSender::<FromDaemon>::connect(self.server.clone());
    }
}

/// The receiving thread: the handshake, then all messages until the channel ends. Says why.
fn converse(
    server: IpcOneShotServer<Handshake>,
    waiting: Receiver<ToDaemon>,
    outlet: &Outlet,
    met: &AtomicBool,
) -> String {
    let Handshake {
        from_daemon,
        to_daemon,
    } = match server.accept() {
        Ok((_, handshake)) => {
            met.store(true, Ordering::Release);
            handshake
        }
        Err(error) => {
            met.store(true, Ordering::Release);
            return format!("never connected: {error}");
        }
    };
    let sender = thread::Builder::new().spawn(move || {
        for message in waiting {
            if to_daemon.send(message).is_err() {
                return;
            }
        }
    });
    if let Err(error) = sender {
        return format!("no thread to send from: {error}");
    }
    loop {
        match from_daemon.recv() {
            Ok(message) => outlet.put(What::Said(message)),
            Err(error) => return error.to_string(),
        }
    }
}
