//! Control messages between supervisor and daemon, brought from ipc-channel to epoll.
//!
//! ```text
//!   supervisor -- ipc-channel --> thread -- mpsc --> loop
//!                                    \-- eventfd --> epoll
//! ```
//!
//! ipc-channel cannot be waited for with epoll and panics on a malformed message, so a thread
//! of its own receives: should it end, the daemon runs on without control, as it does when the
//! supervisor has died.

use abi::control::{FromDaemon, ToDaemon};
use anyhow::Context as _;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{UnixAddr, getpeername, getsockname};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

/// The first and only message a daemon sends over the one-shot server whose name it was started
/// with: the two channels to use from then on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handshake {
    /// Where the supervisor receives; the first message is [`FromDaemon::Hello`].
    pub from_daemon: IpcReceiver<FromDaemon>,
    /// Where it sends; the first message is [`ToDaemon::Configure`].
    pub to_daemon: IpcSender<ToDaemon>,
}

/// The daemon's side of the control channel.
#[derive(Debug)]
pub struct Control {
    to_supervisor: IpcSender<FromDaemon>,
    messages: Receiver<ToDaemon>,
    event: Arc<EventFd>,
}

/// Connects. ipc-channel 0.23 leaves its socket open when nobody listens, as happens to a daemon
/// whose next supervisor dies at once: it is found by what it is, and closed.
fn reach(server: &str) -> io::Result<IpcSender<Handshake>> {
    let before = unconnected();
    IpcSender::connect(server.to_owned()).inspect_err(|_| {
        for fd in unconnected() {
            if !before.contains(&fd) {
                let _ = nix::unistd::close(fd);
            }
        }
    })
}

/// This process's sockets in AF_UNIX that are neither connected nor bound.
fn unconnected() -> Vec<RawFd> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| {
            getsockname::<UnixAddr>(*fd).is_ok_and(|name| name.path_len() == 0)
                && getpeername::<UnixAddr>(*fd) == Err(Errno::ENOTCONN)
        })
        .collect()
}

impl Control {
    /// Connects to the supervisor's one-shot server and says hello.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn connect(server: &str) -> anyhow::Result<Self> {
        let first =
            reach(server).with_context(|| format!("connecting to the supervisor at {server}"))?;
        let (to_supervisor, from_daemon) = ipc::channel().context("making a control channel")?;
        let (to_daemon, from_supervisor) = ipc::channel().context("making a control channel")?;
        first
            .send(Handshake {
                from_daemon,
                to_daemon,
            })
            .context("sending the handshake to the supervisor")?;
        to_supervisor
            .send(FromDaemon::Hello {
                pid: std::process::id(),
                layout: abi::LAYOUT_VERSION,
            })
            .context("greeting the supervisor")?;

        let event = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        let (forward, messages) = mpsc::channel();
        let ring = Arc::clone(&event);
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                let mut is_configured = false;
                while let Ok(message) = from_supervisor.recv() {
                    is_configured = true;
                    if forward.send(message).is_err() {
                        return;
                    }
                    // Full means that a wake-up is pending already.
                    let _ = ring.write(1);
                }
                if is_configured {
                    tracing::warn!("control channel closed; running on without a supervisor");
                }
            })?;
        Ok(Self {
            to_supervisor,
            messages,
            event,
        })
    }

    /// For epoll, edge-triggered.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The next message, if one waits.
    pub(crate) fn try_recv(&self) -> Option<ToDaemon> {
        self.messages.try_recv().ok()
    }

    /// The next message, waiting for it; none when the supervisor is gone.
    pub(crate) fn recv(&self) -> Option<ToDaemon> {
        self.messages.recv().ok()
    }

    /// Sends a message; a supervisor that is gone is no reason to stop.
    pub(crate) fn send(&self, message: FromDaemon) {
        if let Err(error) = self.to_supervisor.send(message) {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_that_is_not_there_leaves_nothing_open() {
        let before = unconnected();
        for _ in 0..4 {
            assert!(Control::connect("/nobody/listens/here").is_err());
        }
        assert_eq!(unconnected(), before);
    }
}
