//! What the network and neighbours can do wrong: counters move, nobody dies, traffic goes on.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways};
use libsocket::Stack;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket,
};
use shm::sync::Ordering;
use shm::{Link, Side};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("ten_thousand_random_and_mutated_frames", random_frames);
    trials.add(
        "forged_handles_and_impossible_indices_in_every_ring",
        forged_rings,
    );
}

/// Process ids of all daemons.
pub(crate) fn pids(lab: &Lab) -> Result<Vec<Option<u32>>> {
    Ok(lab.status()?.daemons.iter().map(|d| d.pid).collect())
}

/// A link-layer address to send frames by an interface, or to receive those of a protocol there.
pub(crate) fn interface_address(name: &str, protocol: u16) -> Result<LinkAddr> {
    let index = i32::try_from(if_nametoindex(name)?)?;
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let len = u32::try_from(size_of::<libc::sockaddr_ll>())?;
    #[allow(
        unsafe_code,
        reason = "nix offers no safe constructor of a link address"
    )]
    // SAFETY: `raw` is a complete sockaddr_ll of the length given.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(len)) }.context("a link address")
}

fn random_frames() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let before = pids(&lab)?;
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let (a, b) = (ours.local_addr()?, ours.peer_addr()?);
    let transfer = thread::spawn(move || both_ways(ours, theirs, 64 << 20, Writes::BIG));

    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let to = interface_address(&lab.host_interface, 0)?;
    let mut random = fastrand::Rng::with_seed(11);
    let mac = stack_mac(&lab)?;
    for i in 0..10_000 {
        let frame = frame(&mut random, mac, a, b);
        // A frame that the kernel itself refuses (too short, too long) is no test.
        let _ = sendto(raw.as_raw_fd(), &frame, &to, MsgFlags::empty());
        if i % 100 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .context("the transfer beside")?;
    ensure!(pids(&lab)? == before, "somebody died:\n{}", lab.log());
    ensure!(
        lab.counter("ipd", "ip_in_hdr_errors")? > 0,
        "no frame was found wrong"
    );
    let (theirs, ours) = connect(&lab, &stack, false)?;
    both_ways(ours, theirs, 1 << 20, Writes::MIXED).context("afterwards")?;
    Ok(())
}

/// The stack's own link-layer address, learned by the kernel.
pub(crate) fn stack_mac(lab: &Lab) -> Result<[u8; 6]> {
    let table = std::fs::read_to_string("/proc/net/arp")?;
    let line = table
        .lines()
        .find(|l| l.split_whitespace().next() == Some(&lab.stack.to_string()))
        .with_context(|| format!("no neighbour {} in\n{table}", lab.stack))?;
    let mac = line.split_whitespace().nth(3).context("no address")?;
    let mac: wire::ethernet::MacAddr = mac.parse().map_err(|_| anyhow::anyhow!("bad {mac}"))?;
    Ok(mac.0)
}

/// A frame for the stack: noise, or a plausible packet with some bytes changed. Never one that a
/// connection could believe: the sequence numbers are random.
fn frame(
    random: &mut fastrand::Rng,
    mac: [u8; 6],
    a: std::net::SocketAddr,
    b: std::net::SocketAddr,
) -> Vec<u8> {
    let mut frame = mac.to_vec();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9]);
    let types: [u16; 5] = [0x0800, 0x0800, 0x0800, 0x0806, 0x86dd];
    frame.extend_from_slice(&random.choice(types).unwrap_or(0x0800).to_be_bytes());
    let mut body: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
    if random.bool() {
        let std::net::SocketAddr::V4(a) = a else {
            return frame;
        };
        let std::net::SocketAddr::V4(b) = b else {
            return frame;
        };
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&u16::try_from(20 + body.len()).unwrap_or(0).to_be_bytes());
        packet.extend_from_slice(&[0, 1, random.u8(..) & 0x3f, 0, 64]);
        packet.push(random.choice([6u8, 17, 1, 99]).unwrap_or(6));
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(&b.ip().octets());
        packet.extend_from_slice(&a.ip().octets());
        let sum = wire::checksum::of(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        if body.len() >= 4 {
            body[..2].copy_from_slice(&b.port().to_be_bytes());
            body[2..4].copy_from_slice(&a.port().to_be_bytes());
        }
        packet.extend_from_slice(&body);
        for _ in 0..random.usize(0..4) {
            let at = random.usize(0..packet.len());
            packet[at] = random.u8(..);
        }
        body = packet;
    }
    frame.extend_from_slice(&body);
    frame
}

fn forged_rings() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    let before = pids(&lab)?;
    let (theirs, ours) = connect(&lab, &stack, true)?;
    let links = links(&lab)?;
    ensure!(links.len() >= 3, "found {} links", links.len());
    let mut random = fastrand::Rng::with_seed(5);
    let transfer = thread::spawn(move || both_ways(ours, theirs, 128 << 20, Writes::BIG));
    for link in &links {
        for side in [Side::Upper, Side::Lower] {
            let ring = link.words(side).context("a link's ring")?;
            for round in 0..20 {
                if round % 4 == 3 {
                    ring.tail.store(random.u32(..), Ordering::Release);
                } else if round % 4 == 1 {
                    ring.head.store(random.u32(..), Ordering::Release);
                }
                for slot in ring.slots.iter().take(16) {
                    slot.store(random.u64(..), Ordering::Release);
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    transfer
        .join()
        .map_err(|_| anyhow::anyhow!("panicked"))?
        .context("the transfer beside")?;
    ensure!(pids(&lab)? == before, "somebody died:\n{}", lab.log());
    let counted = lab
        .status()?
        .daemons
        .iter()
        .flat_map(|d| d.counters.clone())
        .filter(|(name, _)| name.contains("peer_faults") || name.contains("stale"))
        .map(|(_, n)| n)
        .sum::<u64>();
    ensure!(counted > 0, "nobody counted a fault");
    let (theirs, ours) = connect(&lab, &stack, false)?;
    both_ways(ours, theirs, 1 << 20, Writes::MIXED).context("afterwards")?;
    Ok(())
}

/// The links' memories, found among the supervisor's descriptors.
fn links(lab: &Lab) -> Result<Vec<&'static Link>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", lab.status()?.pid))? {
        let path = entry?.path();
        let name = std::fs::read_link(&path).unwrap_or_default();
        if name.to_string_lossy().contains("link") && name.to_string_lossy().contains("memfd:") {
            let file = File::options().read(true).write(true).open(&path)?;
            if let Ok(link) = Link::attach(&file) {
                found.push(link);
            }
        }
    }
    Ok(found)
}
