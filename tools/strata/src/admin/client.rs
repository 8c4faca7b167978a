//! Calling the supervisor.

use super::{Reply, Request, Status};
use crate::rundir::RunDir;
use abi::codec;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt::{ReceiveTimeout, SendTimeout},
};
use nix::sys::time::TimeVal;
use std::os::fd::AsRawFd;

/// Longest wait for an answer in seconds.
const fn patience(request: &Request) -> i64 {
    match request {
        // These may have to wait for a drain and a start.
        Request::Down | Request::Restart { .. } | Request::Upgrade { .. } => 30,
        _ => 10,
    }
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is done.
    Done(String),
    /// How everything is.
    Status(Status),
    /// A table.
    Table {
        /// Column names.
        columns: Vec<String>,
        /// Rows.
        rows: Vec<Vec<String>>,
    },
}

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody is there.
    #[error(
        "no constellation `{name}` is running here; `strata up --name {name}` starts one, \
         `strata status --all` shows those that run"
    )]
    NotRunning {
        /// The constellation's name.
        name: String,
    },
    /// Not ours.
    #[error("constellation `{name}` is another user's; run this as who started it, or as root")]
    Forbidden {
        /// The constellation's name.
        name: String,
    },
    /// The supervisor said no.
    #[error("{0}")]
    Refused(String),
    /// The supervisor died, hangs, or is of another version.
    #[error(
        "the supervisor of `{name}` did not answer: {why}; if it hangs, `strata up --replace` \
         with its configuration puts another in its place, and connections do not notice"
    )]
    Broken {
        /// The constellation's name.
        name: String,
        /// Why.
        why: String,
    },
}

/// Asks the supervisor of the constellation in `rundir`.
///
/// # Errors
/// See [`CallError`].
pub fn call(rundir: &RunDir, request: &Request) -> Result<Answer, CallError> {
    let name = rundir.name().to_owned();
    let broken = |why: String| CallError::Broken {
        name: rundir.name().to_owned(),
        why,
    };
    let system = |errno: Errno| broken(errno.desc().to_owned());
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(system)?;
    let patience = patience(request);
    let time = TimeVal::new(patience, 0);
    setsockopt(&socket, ReceiveTimeout, &time).map_err(system)?;
    // That of a hung supervisor may be full of those who called before.
    setsockopt(&socket, SendTimeout, &time).map_err(system)?;
    let address = UnixAddr::new(&rundir.admin_socket()).map_err(system)?;
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => {
            return Err(CallError::NotRunning { name });
        }
        Err(Errno::EACCES | Errno::EPERM) => return Err(CallError::Forbidden { name }),
        Err(errno) => return Err(system(errno)),
    }
    let bytes = codec::encode(request).map_err(|error| broken(error.to_string()))?;
    send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).map_err(system)?;
    let mut all_rows = Vec::new();
    let mut buffer = vec![0; codec::MAX_MESSAGE];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) => return Err(broken("it closed the connection".to_owned())),
            Ok(len) => len,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Err(broken(format!("nothing for {patience} s"))),
            Err(errno) => return Err(system(errno)),
        };
        let reply = codec::decode(buffer.get(..len).unwrap_or_default())
            .map_err(|error| broken(error.to_string()))?;
        match reply {
            Reply::Done(text) => return Ok(Answer::Done(text)),
            Reply::Status(status) => return Ok(Answer::Status(*status)),
            Reply::Failed(why) => return Err(CallError::Refused(why)),
            Reply::Table {
                columns,
                rows,
                more,
            } => {
                all_rows.extend(rows);
                if !more {
                    return Ok(Answer::Table {
                        columns,
                        rows: all_rows,
                    });
                }
            }
        }
    }
}
