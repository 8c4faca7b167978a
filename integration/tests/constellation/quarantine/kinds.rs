//! Packets of all kinds that kill ipd or netdevd: what leaves, fragments, ICMP and ARP.

use super::{NETDEVD, PATIENCE, POISON, Scene, scene_beside, segment};
use crate::hostile::{interface_address, stack_mac};
use abi::ServiceId;
use anyhow::{Result, ensure};
use integration::Trials;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
use shm::crash::Action;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;
use strata::topology::IPD;

/// Bytes each way beside: for longer than three deaths take.
const TRANSFER: u64 = 96 << 20;

pub(super) fn add(trials: &mut Trials) {
    trials.add(
        "a_poisoned_segment_that_leaves_through_ipd_is_quarantined",
        || segment("ipd", IPD, Action::Abort, false),
    );
    trials.add(
        "a_poisoned_segment_that_leaves_by_netdevd_is_quarantined",
        || segment("netdevd", NETDEVD, Action::Abort, false),
    );
    trials.add(
        "a_poisoned_datagram_that_leaves_through_ipd_is_quarantined",
        || leaving("ipd", IPD),
    );
    trials.add(
        "a_poisoned_datagram_that_leaves_by_netdevd_is_quarantined",
        || leaving("netdevd", NETDEVD),
    );
    trials.add("a_poisoned_fragment_is_quarantined", || {
        frame("ipd", IPD, "UDP ", &fragment)?;
        frame("netdevd", NETDEVD, "UDP ", &fragment)
    });
    trials.add("a_poisoned_echo_request_is_quarantined", || {
        frame("ipd", IPD, "ICMP ", &echo)?;
        frame("netdevd", NETDEVD, "ICMP ", &echo)
    });
    trials.add("a_poisoned_arp_request_is_quarantined", || {
        frame("ipd", IPD, "packet ", &arp)?;
        frame("netdevd", NETDEVD, "packet ", &arp)
    });
}

/// Datagrams of one socket of the stack kill the layer; they are dropped, those of another leave,
/// and what comes to the first arrives.
fn leaving(layer: &str, service: ServiceId) -> Result<()> {
    let scene = scene_beside(TRANSFER)?;
    let address = (scene.lab.stack, 0);
    let (poisoner, other) = (scene.stack.udp(address)?, scene.stack.udp(address)?);
    let theirs = UdpSocket::bind((scene.lab.host, 0))?;
    theirs.set_read_timeout(Some(Duration::from_millis(200)))?;
    poisoner.set_read_timeout(Some(PATIENCE))?;
    let to = theirs.local_addr()?;
    poisoner.send_to(b"hello", to)?;
    let mut buffer = [0; 64];
    theirs.recv(&mut buffer)?;
    scene.trigger.poison(service, POISON, Action::Abort);
    let held = scene.wait_quarantined(layer, || {
        poisoner.send_to(&POISON, to)?;
        sleep(Duration::from_millis(50));
        Ok(())
    })?;
    ensure!(held.what.starts_with("UDP "), "{held:?}");
    for _ in 0..20 {
        poisoner.send_to(&POISON, to)?;
        poisoner.send_to(b"of the same flow", to)?;
    }
    let arrived = (0..20u8).any(|n| {
        other.send_to(&[n; 3], to).is_ok() && theirs.recv(&mut buffer).is_ok_and(|n| n == 3)
    });
    ensure!(
        arrived,
        "another socket's datagrams do not leave\n{}",
        scene.lab.log()
    );
    let others = (0..5).filter(|_| theirs.recv(&mut buffer).is_ok_and(|n| n != 3));
    ensure!(
        others.count() == 0,
        "something of the quarantined flow left"
    );
    theirs.send_to(b"back", poisoner.local_addr()?)?;
    ensure!(poisoner.recv(&mut buffer)? == 4);
    scene.finish(layer, &held, true)
}

/// The same frame again and again, until it is quarantined; then a few more.
fn frame(
    layer: &str,
    service: ServiceId,
    what: &str,
    make: &dyn Fn(&Scene) -> Result<Vec<u8>>,
) -> Result<()> {
    let scene = scene_beside(TRANSFER)?;
    let raw = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let to = interface_address(&scene.lab.host_interface, 0)?;
    let frame = make(&scene)?;
    let send = || -> Result<()> {
        sendto(raw.as_raw_fd(), &frame, &to, MsgFlags::empty())?;
        sleep(Duration::from_millis(50));
        Ok(())
    };
    scene.trigger.poison(service, POISON, Action::Abort);
    let held = scene.wait_quarantined(layer, send)?;
    ensure!(held.what.starts_with(what), "{held:?}");
    for _ in 0..10 {
        send()?;
    }
    let dropped = scene.lab.counter(layer, "rt_quarantined")?;
    ensure!(dropped > 0, "nothing was dropped\n{}", scene.lab.log());
    // What is of no suspect arrives, and is answered.
    let ours = scene.stack.udp((scene.lab.stack, 0))?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let theirs = UdpSocket::bind((scene.lab.host, 0))?;
    theirs.set_read_timeout(Some(PATIENCE))?;
    theirs.send_to(b"whole", ours.local_addr()?)?;
    let mut buffer = [0; 64];
    let (n, from) = ours.recv_from(&mut buffer)?;
    ensure!(&buffer[..n] == b"whole");
    ours.send_to(b"answer", from)?;
    ensure!(theirs.recv(&mut buffer)? == 6);
    scene.finish(layer, &held, true)
}

/// An Ethernet frame from the kernel's side to the stack.
fn ethernet(scene: &Scene, ethertype: u16, body: &[u8]) -> Result<Vec<u8>> {
    let mut frame = stack_mac(&scene.lab)?.to_vec();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(body);
    frame.resize(frame.len().max(60), 0);
    Ok(frame)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}

fn ipv4(scene: &Scene, protocol: u8, fragment: u16, body: &[u8]) -> Result<Vec<u8>> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&u16::try_from(20 + body.len())?.to_be_bytes());
    header.extend_from_slice(&[0xab, 0xcd]);
    header.extend_from_slice(&fragment.to_be_bytes());
    header.extend_from_slice(&[64, protocol, 0, 0]);
    header.extend_from_slice(&scene.lab.host.octets());
    header.extend_from_slice(&scene.lab.stack.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    header.extend_from_slice(body);
    ethernet(scene, u16::try_from(libc::ETH_P_IP)?, &header)
}

/// The last fragment of a datagram whose first never comes.
fn fragment(scene: &Scene) -> Result<Vec<u8>> {
    let mut body = vec![7; 200];
    body[100..116].copy_from_slice(&POISON);
    ipv4(scene, 17, 1480 / 8, &body)
}

fn echo(scene: &Scene) -> Result<Vec<u8>> {
    let mut body = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    body.extend_from_slice(&POISON);
    let sum = checksum(&body);
    body[2..4].copy_from_slice(&sum);
    ipv4(scene, 1, 0, &body)
}

/// What a request is padded with is in the frame, too.
fn arp(scene: &Scene) -> Result<Vec<u8>> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9];
    body.extend_from_slice(&scene.lab.host.octets());
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&scene.lab.stack.octets());
    body.extend_from_slice(&POISON);
    ethernet(scene, u16::try_from(libc::ETH_P_ARP)?, &body)
}
