//! The two socket calls for which the nix crate has no fitting form: receiving a message with
//! its descriptors (none may leak, whatever the message is), and sending two messages at once.
#![allow(unsafe_code, reason = "recvmsg with SCM_RIGHTS, and sendmmsg")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Descriptors in one message at the most (Linux's `SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// Room for one control message of [`MAX_FDS`] descriptors, aligned for its header.
#[repr(C, align(8))]
struct Control([u8; Control::SIZE]);

impl Control {
    const SIZE: usize = 16 + (MAX_FDS * size_of::<libc::c_int>()).next_multiple_of(8);
}

/// What arrived.
#[derive(Debug)]
pub(crate) struct Message {
    /// Bytes of it; 0 is the end.
    pub(crate) len: usize,
    /// Its descriptors, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
    /// Descriptors were lost: the process has no room for more (`EMFILE`).
    pub(crate) lost_fds: bool,
}

/// Receives one message and owns whatever descriptors come with it.
///
/// # Errors
/// As `recvmsg`.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    into: &mut [u8],
    flags: libc::c_int,
) -> io::Result<Message> {
    let mut control = Control([0; Control::SIZE]);
    let mut part = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    // SAFETY: all-zero is a valid msghdr (null pointers with zero lengths).
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = Control::SIZE as _;
    // SAFETY: the header points to a live iovec over `into` and to a live control buffer, with
    // their true lengths.
    let got = unsafe {
        libc::recvmsg(
            fd.as_raw_fd(),
            &raw mut header,
            flags | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let len = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the header; CMSG_* walk within msg_controllen of the buffer.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !at.is_null() {
        // SAFETY: `at` came from CMSG_FIRSTHDR or CMSG_NXTHDR, which answer null or a whole
        // header inside the aligned buffer.
        let head = unsafe { at.read() };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes.
            let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
            let bytes = head.cmsg_len.saturating_sub(overhead);
            // SAFETY: CMSG_DATA only computes.
            let data = unsafe { libc::CMSG_DATA(at) }.cast::<libc::c_int>();
            for i in 0..bytes / size_of::<libc::c_int>() {
                // SAFETY: i is below the count that the kernel wrote, which is in the buffer.
                let slot = unsafe { data.add(i) };
                // SAFETY: as above; unaligned in case the platform's header is not a multiple.
                let raw = unsafe { slot.read_unaligned() };
                // SAFETY: the kernel just installed this descriptor for us; nobody else has it.
                fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        at = unsafe { libc::CMSG_NXTHDR(&raw const header, at) };
    }
    Ok(Message {
        len,
        fds,
        lost_fds: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Sends two messages in one system call; answers how many went.
///
/// # Errors
/// As `sendmmsg`: when not even the first went.
pub(crate) fn send_two(
    fd: BorrowedFd<'_>,
    messages: [&[u8]; 2],
    flags: libc::c_int,
) -> io::Result<usize> {
    let mut parts = messages.map(|m| libc::iovec {
        iov_base: m.as_ptr().cast_mut().cast(),
        iov_len: m.len(),
    });
    // SAFETY: all-zero is a valid mmsghdr (null pointers with zero lengths).
    let mut headers: [libc::mmsghdr; 2] = unsafe { std::mem::zeroed() };
    for (header, part) in headers.iter_mut().zip(&mut parts) {
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: two headers, each with one live iovec over bytes that sending only reads.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), 2, flags as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_owned() {
        let (a, b) = UnixStream::pair().unwrap();
        let (one, two) = UnixStream::pair().unwrap();
        let raw = [one.as_raw_fd(), two.as_raw_fd()];
        sendmsg::<()>(
            a.as_raw_fd(),
            &[IoSlice::new(b"hello")],
            &[ControlMessage::ScmRights(&raw)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        let mut buf = [0; 16];
        let got = receive(b.as_fd(), &mut buf, 0).unwrap();
        assert_eq!((got.len, got.fds.len(), got.lost_fds), (5, 2, false));
        drop((one, two));
        // Ours are the last copies: closing one shows on the other.
        let mut fds = got.fds.into_iter().map(UnixStream::from);
        let (one, two) = (fds.next().unwrap(), fds.next().unwrap());
        drop(one);
        assert_eq!(io::Read::read(&mut &two, &mut buf).unwrap(), 0);
    }

    #[test]
    fn two_messages_stay_two() {
        let (a, b) = UnixStream::pair().unwrap();
        assert_eq!(send_two(a.as_fd(), [&[0; 256], &[9]], 0).unwrap(), 2);
        let mut buf = [0; 512];
        assert_eq!(receive(b.as_fd(), &mut buf, 0).unwrap().len, 257);
        drop(b);
        assert!(send_two(a.as_fd(), [&[0], &[0]], libc::MSG_NOSIGNAL).is_err());
    }
}
