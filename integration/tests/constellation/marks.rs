//! Congestion marks from the path (RFC 3168), against the kernel's TCP, both ways: the sender
//! slows down as for a loss, and nothing is lost or sent again.

use crate::path::{
    CWND, DELIVERED_CE, DSACK_DUPS, Info, OPTIONS, REORD_SEEN, SSTHRESH, TOTAL_RETRANS,
    info_of_kernel, info_of_stack,
};
use abi::config::Impairment;
use anyhow::{Context, Result, bail, ensure};
use integration::Trials;
use integration::transfer::{Writes, one_way};
use libsocket::Stack;
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use strata::lab::{Lab, LabConfig, LabDevice};
use strata::link::{Link, Port};
use strata::netns::{Namespace, create_veth_into, no_offload, set_address, set_up};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("ce_marks_slow_both_senders_down", marks);
}

const NEAR: &str = "marks0";
const FAR: &str = "marks1";
const PORT: u16 = 5001;

/// `TCPI_OPT_ECN`.
const OPT_ECN: u8 = 8;

/// A path without loss, so quick that a few megabytes take a second.
fn clean() -> Impairment {
    Impairment {
        seed: 11,
        delay_us: 2_000,
        rate_kbps: 200_000,
        ..Impairment::default()
    }
}

/// The same with one frame in a hundred marked.
fn marking() -> Impairment {
    Impairment {
        loss: 0.01,
        ecn: true,
        ..clean()
    }
}

fn marks() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        kind: Some(LabDevice::Packet),
        offload: false,
        bare: true,
        extra: "[tcp]\necn = \"on\"\n".to_owned(),
        ..LabConfig::default()
    })?;
    let far = Namespace::new("marks")?;
    create_veth_into(NEAR, FAR, far.as_fd())?;
    no_offload(NEAR)?;
    set_up(NEAR)?;
    let host = lab.host;
    far.run(move || -> Result<()> {
        no_offload(FAR)?;
        set_address(FAR, format!("{host}/24").parse()?)?;
        set_up(FAR)
    })??;
    let link = Link::start(vec![Port::open(&lab.host_interface)?, Port::open(NEAR)?])?;
    for stack_sends in [true, false] {
        let port = PORT + u16::from(stack_sends);
        sends(&lab, &far, &link, port, stack_sends)
            .with_context(|| format!("stack sends: {stack_sends}\n{}", lab.log()))?;
    }
    link.stop()
}

/// A connection whose ends have agreed upon marks. RFC 3168 6.1.1.1: a SYN that had to be sent again,
/// because the first neighbour resolution takes long on a busy machine, does not ask for them.
fn capable(
    stack: &Stack,
    listener: &TcpListener,
    to: SocketAddr,
) -> Result<(libsocket::TcpStream, TcpStream)> {
    for _ in 0..5 {
        let ours = stack.connect(to)?;
        let (theirs, _) = listener.accept()?;
        if info_of_stack(&ours)?.u8(OPTIONS) & OPT_ECN != 0 {
            return Ok((ours, theirs));
        }
        eprintln!("marks were not agreed upon");
    }
    bail!("five connections without marks")
}

fn sends(lab: &Lab, far: &Namespace, link: &Link, port: u16, stack_sends: bool) -> Result<()> {
    let path = link.path(&clean(), &clean());
    link.assign(port, path);
    let host = lab.host;
    let listener = far.run(move || TcpListener::bind((host, port)))??;
    // The kernel's default may be one that marks do not concern.
    setsockopt(&listener, TcpCongestion, &OsString::from("cubic"))?;
    let (ours, theirs) = capable(&Stack::open(lab.path()), &listener, (host, port).into())?;
    // The handshake carries no data and takes no marks: it would be lost.
    let ways = match stack_sends {
        true => [marking(), clean()],
        false => [clean(), marking()],
    };
    link.set(path, &ways[0], &ways[1]);
    let (s, k) = (ours.try_clone()?, theirs.try_clone()?);
    let len = 4 << 20;
    match stack_sends {
        true => one_way(ours, theirs, len, Writes::BIG)?,
        false => one_way(theirs, ours, len, Writes::BIG)?,
    };
    let (s, k) = (info_of_stack(&s)?, info_of_kernel(&k)?);
    let (sender, receiver): (&Info, &Info) = if stack_sends { (&s, &k) } else { (&k, &s) };
    let way = link.traffic(path)[usize::from(!stack_sends)].faults;
    let told = sender.u32(DELIVERED_CE);
    let (again, window) = (sender.u32(TOTAL_RETRANS), sender.u32(CWND));
    let twice = sender.u32(DSACK_DUPS);
    eprintln!(
        "stack sends: {stack_sends}: {} marked, {told} segments told of, window {window}, \
         threshold {}, {again} sent again, {twice} of them came twice, {} times out of order",
        way.marked,
        sender.u32(SSTHRESH),
        sender.u32(REORD_SEEN),
    );
    ensure!(way.marked >= 5, "{} frames were marked", way.marked);
    ensure!((way.lost, way.overflow) == (0, 0), "{way:?}");
    ensure!(told > 0, "the sender was told of no mark");
    // On a busy machine frames overtake each other between two processors' queues, and what is sent
    // again for that comes twice. Nothing may be missing.
    ensure!(
        again == twice,
        "{again} segments were sent again, {twice} came twice"
    );
    // RFC 3168 6.1.2: as for a loss. Without marks nothing would have ended slow start.
    ensure!(
        sender.u32(SSTHRESH) < 1_000 && window < 200,
        "a window of {window}, {} marks",
        way.marked
    );
    ensure!(receiver.u32(TOTAL_RETRANS) == 0, "the receiver sent data");
    Ok(())
}
