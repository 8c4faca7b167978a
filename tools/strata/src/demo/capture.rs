//! A capture of the kernel's interface, written by a thread while everything else goes on.
#![allow(unsafe_code, reason = "nix cannot make the address of a packet socket")]

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrLike, bind, recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::fs::File;
use std::io::{BufWriter, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};
use wire::pcapng::{Direction, LINKTYPE_ETHERNET, Writer};

/// Room for what comes while the file is written.
const BUFFER: usize = 128 << 20;
/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u8 = 4;

/// A running capture.
#[derive(Debug)]
pub(super) struct Capture {
    file: PathBuf,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    lost: u32,
}

impl Capture {
    /// Captures everything that passes `interface` from now on.
    pub(super) fn start(interface: &str, file: &Path) -> Result<Self> {
        let socket = open(interface)?;
        let sink =
            File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, sink))?;
        writer.interface(interface, LINKTYPE_ETHERNET, 0)?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || record(&socket, &mut writer, &until))?;
        Ok(Self {
            file: file.to_owned(),
            over,
            thread,
        })
    }

    /// Ends it; answers what there is to say.
    pub(super) fn finish(self) -> Result<String> {
        self.over.store(true, Ordering::Relaxed);
        let Ok(result) = self.thread.join() else {
            bail!("the capturing thread panicked");
        };
        let Counts { packets, lost } = result?;
        let missed = match lost {
            0 => String::new(),
            n => format!("; {n} more came too fast to be written (a smaller --size helps)"),
        };
        Ok(format!(
            "{}: {packets} packets{missed}",
            self.file.display()
        ))
    }
}

fn open(interface: &str) -> Result<OwnedFd> {
    let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
    // Protocol 0: nothing is queued before the socket is bound to its interface.
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("cannot open a packet socket")?;
    if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
        let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
    }
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&fd, sockopt::RxqOvfl, &1)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
    bind(fd.as_raw_fd(), &address(index)?).context("cannot bind the packet socket")?;
    Ok(fd)
}

/// All protocols on one interface.
fn address(index: u32) -> Result<LinkAddr> {
    // SAFETY: sockaddr_ll is plain old data, for which all zeroes is a value.
    let mut raw: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    raw.sll_family = u16::try_from(libc::AF_PACKET)?;
    raw.sll_protocol = u16::try_from(SockProtocol::EthAll as i32)?;
    raw.sll_ifindex = i32::try_from(index)?;
    let len = libc::socklen_t::try_from(size_of_val(&raw))?;
    // SAFETY: the pointer is to a sockaddr_ll of that length, which outlives the call.
    let address = unsafe { LinkAddr::from_raw(core::ptr::from_ref(&raw).cast(), Some(len)) };
    address.context("the kernel's packet address is not understood")
}

fn record(
    socket: &OwnedFd,
    writer: &mut Writer<BufWriter<File>>,
    over: &AtomicBool,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut frame = vec![0; 128 * 1024];
    let mut control = nix::cmsg_space!(libc::timespec, u32);
    loop {
        let mut parts = [IoSliceMut::new(&mut frame)];
        let flags = MsgFlags::empty();
        let got = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
        let message = match got {
            Ok(message) => message,
            // Looked at only when nothing waits: what was on its way is still written.
            Err(Errno::EAGAIN) if over.load(Ordering::Relaxed) => break,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("receiving from the packet socket"),
        };
        let mut at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmTimestampns(time) => {
                    at = core::time::Duration::from(time).as_nanos();
                }
                ControlMessageOwned::RxqOvfl(lost) => counts.lost = lost,
                _ => {}
            }
        }
        let outgoing = message
            .address
            .is_some_and(|a| a.as_ref().sll_pkttype == OUTGOING);
        let direction = if outgoing {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        let len = message.bytes;
        let piece = frame.get(..len).unwrap_or_default();
        writer.packet(0, u64::try_from(at)?, direction, &[piece], None)?;
        counts.packets += 1;
    }
    writer.flush()?;
    Ok(counts)
}
