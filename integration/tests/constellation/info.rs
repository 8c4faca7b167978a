//! `TCP_INFO` over a link of known delay and rate: what ours says of a transfer beside what the
//! kernel says of the same one from the other end, and of the same one in the other direction.
//!
//! Every field that a transfer without trouble fills is here; those of loss, timeouts, marks and
//! windows that close are in `tcpd/tests/segments/info.rs` and `tcpd/tests/scenarios`. Zero with
//! us as with Linux: `fackets`, `last_ack_sent` (neither is kept any more) and, as no flow label is
//! ever chosen anew, `rehash`.

use crate::path::{Info, info_of_kernel, info_of_stack};
use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, one_way};
use libsocket::Stack;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("tcp_info_of_a_slow_link_beside_the_kernels", slow_link);
}

/// Without a queue, in microseconds.
const LINK_RTT: u32 = 20_000;
/// Bytes a second.
const RATE: u64 = 12_500_000;
const LEN: u64 = 12 << 20;

/// What both ends say when all has arrived and been acknowledged.
struct Said {
    sender: Info,
    receiver: Info,
    took: Duration,
}

fn transfer(lab: &Lab, stack: &Stack, stack_sends: bool) -> Result<Said> {
    let (theirs, ours) = connect(lab, stack, true)?;
    let begin = Instant::now();
    let (from, to) = (theirs.try_clone()?, ours.try_clone()?);
    if stack_sends {
        one_way(to, from, LEN, Writes::BIG)?;
    } else {
        one_way(from, to, LEN, Writes::BIG)?;
    }
    // The last acknowledgement is under way.
    std::thread::sleep(Duration::from_millis(100));
    let took = begin.elapsed();
    let (kernel, stack) = (info_of_kernel(&theirs)?, info_of_stack(&ours)?);
    let (sender, receiver) = if stack_sends {
        (stack, kernel)
    } else {
        (kernel, stack)
    };
    Ok(Said {
        sender,
        receiver,
        took,
    })
}

/// A field of four bytes, and between what both ends' values have to lie.
const SENDER: [(&str, usize, u32, u32); 15] = [
    ("rto", 8, 200_000, 1_000_000),
    ("snd_mss", 16, 1_448, 1_448),
    ("unacked", 24, 0, 0),
    ("sacked", 28, 0, 0),
    ("lost", 32, 0, 0),
    ("fackets", 40, 0, 0),
    ("last_ack_sent", 48, 0, 0),
    ("pmtu", 60, 1_500, 1_500),
    ("rtt", 68, LINK_RTT, 20 * LINK_RTT),
    ("snd_cwnd", 80, 10, 100_000),
    ("reordering", 88, 3, 300),
    ("notsent_bytes", 144, 0, 0),
    ("min_rtt", 148, LINK_RTT, 3 * LINK_RTT / 2),
    ("data_segs_out", 156, 8_600, 20_000),
    ("delivered", 192, 8_600, 10_000),
];

const RECEIVER: [(&str, usize, u32, u32); 5] = [
    ("rcv_mss", 20, 1_400, 1_448),
    ("rcv_rtt", 92, LINK_RTT * 9 / 10, 20 * LINK_RTT),
    ("rcv_space", 96, 100_000, 16 << 20),
    ("data_segs_in", 152, 8_600, 20_000),
    ("segs_out", 136, 100, 20_000),
];

/// A field of eight bytes, likewise. Linux counts SYN and FIN among acknowledged bytes.
const SENDER_LONG: [(&str, usize, u64, u64); 5] = [
    ("max_pacing_rate", 112, u64::MAX, u64::MAX),
    ("bytes_acked", 120, LEN, LEN + 2),
    ("delivery_rate", 160, RATE / 10, 2 * RATE),
    ("busy_time", 168, 900_000, 20_000_000),
    ("bytes_sent", 200, LEN, LEN + LEN / 4),
];

fn check(who: &str, said: &Said) -> Result<()> {
    let words = SENDER.iter().map(|field| (&said.sender, field));
    for (info, &(name, at, least, most)) in
        words.chain(RECEIVER.iter().map(|field| (&said.receiver, field)))
    {
        let value = info.u32(at);
        println!("{who}: {name} {value}");
        ensure!(
            (least..=most).contains(&value),
            "{who}: {name} is {value}, not {least} to {most}"
        );
    }
    for &(name, at, least, most) in &SENDER_LONG {
        let value = said.sender.u64(at);
        println!("{who}: {name} {value}");
        ensure!(
            (least..=most).contains(&value),
            "{who}: {name} is {value}, not {least} to {most}"
        );
    }
    let busy = Duration::from_micros(said.sender.u64(168));
    ensure!(busy <= said.took, "{who}: busy {busy:?} of {:?}", said.took);
    let (sent, again) = (said.sender.u64(200), said.sender.u64(208));
    ensure!(
        sent - again == LEN,
        "{who}: {sent} bytes sent, {again} of them again"
    );
    let received = said.receiver.u64(128);
    ensure!(
        received.abs_diff(LEN) <= 1,
        "{who}: {received} bytes received"
    );
    Ok(())
}

fn slow_link() -> Result<()> {
    let lab = Lab::start(&LabConfig {
        device: r#"impairment = { delay = "10ms", rate = "100mbit" }"#.to_owned(),
        ..LabConfig::default()
    })?;
    let stack = Stack::open(lab.path());
    let kernels = transfer(&lab, &stack, true)?;
    check("the stack sends", &kernels).context("the kernel receives")?;
    let ours = transfer(&lab, &stack, false)?;
    check("the kernel sends", &ours).context("the stack receives")?;
    // The same transfer in either direction: each receiver's own measurements of it are of one
    // size. Neither measures exactly; a window takes longer than a round trip while it grows.
    for (name, at, apart) in [("rcv_rtt", 92, 4), ("rcv_space", 96, 8)] {
        let (kernel, stack) = (kernels.receiver.u32(at), ours.receiver.u32(at));
        println!("{name}: kernel {kernel}, stack {stack}");
        ensure!(
            stack <= kernel * apart && kernel <= stack * apart,
            "{name}: kernel {kernel}, stack {stack}"
        );
        // Of the sender's side of the same transfer, and of the same bytes.
        if name == "rcv_rtt" {
            let sender = ours.sender.u32(68);
            ensure!(
                stack <= 4 * sender,
                "rcv_rtt {stack}, sender's rtt {sender}"
            );
        }
    }
    Ok(())
}
