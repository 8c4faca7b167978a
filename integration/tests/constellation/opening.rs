//! Opening under load and Fast Open, with the kernel at the other end.

use anyhow::{Context, Result, ensure};
use integration::Trials;
use libsocket::Stack;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, listen, sendto,
    socket,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("fast_open_from_the_kernel", from_the_kernel);
    trials.add("fast_open_to_the_kernel", to_the_kernel);
    trials.add("fast_open_keys_change_across_kills", keys_change);
    trials.add("syn_flood_and_the_kernel_connects", flood);
}

/// Bit of `tcpi_options` and its place: the data of a SYN was taken.
const SYN_DATA: u8 = 32;
const OPTIONS_AT: usize = 5;
const PATIENCE: Duration = Duration::from_secs(10);

/// Sets a TCP option of a kernel socket to a number.
#[allow(unsafe_code, reason = "nix does not know these options")]
fn set(fd: &impl AsRawFd, option: libc::c_int, value: libc::c_int) -> Result<()> {
    // SAFETY: the value is an int that lives through the call, and its length is said.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            u32::try_from(size_of::<libc::c_int>())?,
        )
    };
    ensure!(done == 0, "setsockopt: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A connection of the kernel's that takes `data` along in the SYN if it may, and what comes back.
fn ask_ours(to: SocketAddr, data: &[u8]) -> Result<Vec<u8>> {
    let SocketAddr::V4(to) = to else {
        anyhow::bail!("an IPv4 address");
    };
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    set(&fd, libc::TCP_FASTOPEN_CONNECT, 1)?;
    nix::sys::socket::connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(data)?;
    let mut answer = vec![0; data.len()];
    stream.read_exact(&mut answer).context("the answer")?;
    Ok(answer)
}

/// The kernel connects: its second connection has its data in the SYN, and so has the third,
/// although tcpd was killed since it gave the cookie.
fn from_the_kernel() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    listener.set_fast_open(16)?;
    let to = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<Vec<bool>> {
        let mut early = Vec::new();
        for _ in 0..4 {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut data = [0; 5];
            stream.read_exact(&mut data)?;
            stream.write_all(&data)?;
            let info = stream.tcp_info()?;
            early.push(info.get(OPTIONS_AT).is_some_and(|o| o & SYN_DATA != 0));
        }
        Ok(early)
    });
    for data in [b"first", b"again"] {
        ensure!(ask_ours(to, data)? == data);
    }
    ensure!(lab.counter("tcpd", "fast_open_passive")? == 1);
    let old = lab.signal("tcpd", Signal::SIGKILL)?;
    lab.wait_replaced("tcpd", old)?;
    for data in [b"third", b"forth"] {
        ensure!(ask_ours(to, data)? == data);
    }
    let early = server.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(early == [false, true, true, true], "early: {early:?}");
    Ok(())
}

/// The key changes again and again, and tcpd dies: who comes often enough is always let in early,
/// with cookies that are renewed; who stays away too long has to ask again.
fn keys_change() -> Result<()> {
    const KEY: Duration = Duration::from_secs(2);
    let lab = Lab::start(&LabConfig {
        extra: "[tcp]\nfast-open-key = \"2s\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    listener.set_fast_open(16)?;
    let to = listener.local_addr()?;
    let ask = || -> Result<bool> {
        let client = thread::spawn(move || ask_ours(to, b"early"));
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut data = [0; 5];
        stream.read_exact(&mut data)?;
        stream.write_all(&data)?;
        let info = stream.tcp_info()?;
        client.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        Ok(info.get(OPTIONS_AT).is_some_and(|o| o & SYN_DATA != 0))
    };
    ensure!(!ask()?, "without a cookie");
    let begin = Instant::now();
    let mut turns = 0;
    while begin.elapsed() < 3 * KEY {
        ensure!(ask()?, "turn {turns}, after {:?}", begin.elapsed());
        turns += 1;
        if turns % 4 == 0 {
            let old = lab.signal("tcpd", Signal::SIGKILL)?;
            lab.wait_replaced("tcpd", old)?;
        }
        thread::sleep(KEY / 10);
    }
    // Three or four changes, each seen by one.
    let renewed = lab.counter("tcpd", "fast_open_renewed")?;
    ensure!((2..=4).contains(&renewed), "{renewed} cookies renewed");
    thread::sleep(2 * KEY + KEY / 10);
    ensure!(!ask()?, "an old cookie was taken");
    ensure!(ask()?, "with the new cookie");
    Ok(())
}

/// We connect: the kernel gives a cookie, and takes the data of the second SYN.
fn to_the_kernel() -> Result<()> {
    // Ours to write: the namespace is the test's own.
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3")
        .context("net.ipv4.tcp_fastopen of the test's namespace")?;
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(
        fd.as_raw_fd(),
        &SockaddrIn::from(SocketAddrV4::new(lab.host, 0)),
    )?;
    set(&fd, libc::TCP_FASTOPEN, 16)?;
    listen(&fd, nix::sys::socket::Backlog::new(16)?)?;
    let listener = TcpListener::from(fd);
    let to = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<()> {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut data = [0; 5];
            stream.read_exact(&mut data)?;
            stream.write_all(&data)?;
        }
        Ok(())
    });
    let mut early = Vec::new();
    for data in [b"first", b"again", b"third"] {
        let (mut stream, taken) = stack.connect_with_data(to, data)?;
        ensure!(taken == data.len());
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        ensure!(answer == *data);
        let info = stream.tcp_info()?;
        early.push(info.get(OPTIONS_AT).is_some_and(|o| o & SYN_DATA != 0));
    }
    server.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    ensure!(early == [false, true, true], "early: {early:?}");
    ensure!(lab.counter("tcpd", "fast_open_active")? == 2);
    Ok(())
}

/// A SYN of an address that does not exist, IP header included.
fn syn(i: u32, to: SocketAddrV4) -> [u8; 40] {
    let [_, a, b, c] = i.to_be_bytes();
    let from = Ipv4Addr::new(198, 18 + (a & 1), b, c);
    let mut packet = [0; 40];
    let (ip, tcp) = packet.split_at_mut(20);
    ip.copy_from_slice(&[
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    tcp[0..2].copy_from_slice(&(1024 + (i % 60_000) as u16).to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&i.wrapping_mul(2_654_435_761).to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = 2;
    tcp[14..16].copy_from_slice(&[0xff, 0xff]);
    let mut sum = wire::checksum::pseudo_header(from.into(), (*to.ip()).into(), 6, 20);
    sum.add(tcp);
    let sum = sum.finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// SYNs a millisecond: a thousand queues full each second, and not more than the link takes. Beyond
/// that it loses packets of everybody, in proportion, and who connects is a matter of chance.
const SYNS: u32 = 100;

/// Sends SYNs until `stop`; answers how many.
fn send_syns(raw: &OwnedFd, to: SocketAddrV4, stop: &AtomicBool) -> u32 {
    let target = SockaddrIn::from(to);
    let start = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) || sent < 100_000 {
        let due = u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX) * SYNS;
        // Late by much, as when the machine stood still: not all at once.
        for _ in 0..due.saturating_sub(sent).min(10 * SYNS) {
            let packet = syn(sent, to);
            // A full queue of the device is no reason to stop.
            let _ = sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::MSG_DONTWAIT);
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// At least 100,000 SYNs of nobody at a listener of ours: the kernel connects all the same, and
/// while tcpd dies, too.
fn flood() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let listener = stack.listen((lab.stack, 0))?;
    let SocketAddr::V4(to) = listener.local_addr()? else {
        anyhow::bail!("an IPv4 address");
    };
    let rounds = 30u32;
    let server = thread::spawn(move || -> Result<()> {
        for _ in 0..rounds {
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let mut data = [0; 4];
            stream.read_exact(&mut data)?;
            stream.write_all(&data)?;
        }
        Ok(())
    });
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        // With the IP header, by its nature.
        SockProtocol::Raw,
    )?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let attacker = thread::spawn(move || send_syns(&raw, to, &stopped));
    // The queue is full before the first of ours comes.
    let mut tries = 0;
    while lab.counter("tcpd", "syn_cookies_sent")? == 0 {
        tries += 1;
        ensure!(tries < 100, "no cookie was sent");
        thread::sleep(Duration::from_millis(50));
    }
    let mut result = Ok(());
    for id in 0..rounds {
        if id == rounds / 2 {
            let old = lab.signal("tcpd", Signal::SIGKILL)?;
            lab.wait_replaced("tcpd", old)?;
        }
        result = exchange(to, id).with_context(|| format!("connection {id}"));
        if result.is_err() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sent = attacker.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    result?;
    server.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    let cookies = lab.counter("tcpd", "syn_cookies_sent")?;
    let back = lab.counter("tcpd", "syn_cookies_received")?;
    eprintln!("{sent} SYNs, {cookies} cookies sent, {back} came back");
    ensure!(back > 0, "{cookies} cookies sent and none came back");
    Ok(())
}

fn exchange(to: SocketAddrV4, id: u32) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(30))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&id.to_le_bytes())?;
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed)?;
    ensure!(echoed == id.to_le_bytes());
    Ok(())
}
