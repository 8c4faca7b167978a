//! What the path does to a connection: sizes that change on the way with and without ICMP,
//! congestion marks, and what both ends' `TCP_INFO` say of the same transfer.

use crate::tcp::connect;
use anyhow::{Context, Result, ensure};
use integration::Trials;
use integration::transfer::{Writes, both_ways, one_way};
use libsocket::Stack;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use strata::lab::{Lab, LabConfig};
use strata::netns::{Namespace, create_veth_into, no_offload, set_address, set_mtu, set_up};

pub(crate) fn add(trials: &mut Trials) {
    trials.add("tcp_info_agrees_with_the_kernels", info);
    trials.add("path_mtu_falls_and_a_router_says_so", || falls(true));
    trials.add("path_mtu_falls_and_nobody_says_so", || falls(false));
    trials.add("ecn_is_agreed_on_in_both_roles", ecn);
}

const MIB: u64 = 1 << 20;

/// `struct tcp_info` of either end, as bytes.
#[derive(Debug)]
pub(crate) struct Info(Vec<u8>);

impl Info {
    pub(crate) fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap_or_default())
    }
    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap_or_default())
    }
}

pub(crate) fn info_of_kernel(stream: &impl AsRawFd) -> Result<Info> {
    let mut bytes = vec![0u8; 248];
    let mut len = libc::socklen_t::try_from(bytes.len())?;
    #[expect(unsafe_code, reason = "nix has no TCP_INFO")]
    // SAFETY: the buffer is as long as `len` says, and both live through the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    ensure!(result == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    Ok(Info(bytes))
}

pub(crate) fn info_of_stack(stream: &libsocket::TcpStream) -> Result<Info> {
    let bytes = stream.tcp_info()?;
    ensure!(bytes.len() == 248, "{} bytes", bytes.len());
    Ok(Info(bytes))
}

pub(crate) const OPTIONS: usize = 5;
const WSCALE: usize = 6;
const SND_MSS: usize = 16;
const RTT: usize = 68;
pub(crate) const SSTHRESH: usize = 76;
pub(crate) const CWND: usize = 80;
const ADVMSS: usize = 84;
const PMTU: usize = 60;
pub(crate) const TOTAL_RETRANS: usize = 100;
pub(crate) const ACKED: usize = 120;
const RECEIVED: usize = 128;
const DELIVERED: usize = 192;
pub(crate) const DELIVERED_CE: usize = 196;
pub(crate) const DSACK_DUPS: usize = 216;
pub(crate) const REORD_SEEN: usize = 220;
/// `TCPI_OPT_ECN`.
const OPT_ECN: u8 = 8;

/// What `check` answers when it is content, for which it gets two seconds.
fn eventually<T>(check: impl Fn() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Err(_) if start.elapsed() < Duration::from_secs(2) => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn info() -> Result<()> {
    let lab = Lab::start(&LabConfig::default())?;
    let stack = Stack::open(lab.path());
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(&lab, &stack, stack_opens)?;
        both_ways(ours.try_clone()?, theirs.try_clone()?, MIB, Writes::BIG)?;
        // What is read may not have been acknowledged yet.
        let (k, s) = eventually(|| {
            let (k, s) = (info_of_kernel(&theirs)?, info_of_stack(&ours)?);
            // The kernel counts SYN and FIN among acknowledged and received bytes.
            for (what, kernel, stack) in [
                ("stack to kernel", k.u64(RECEIVED), s.u64(ACKED)),
                ("kernel to stack", k.u64(ACKED), s.u64(RECEIVED)),
            ] {
                ensure!(
                    stack == MIB && kernel.abs_diff(stack) <= 2,
                    "{what}: kernel {kernel}, stack {stack}"
                );
            }
            Ok((k, s))
        })?;
        ensure!(k.u8(OPTIONS) & 7 == s.u8(OPTIONS) & 7, "options");
        let swapped = s.u8(WSCALE).rotate_left(4);
        ensure!(k.u8(WSCALE) == swapped, "scales {:#x}", k.u8(WSCALE));
        for at in [SND_MSS, ADVMSS, PMTU] {
            ensure!(
                k.u32(at) == s.u32(at),
                "at {at}: kernel {}, stack {}",
                k.u32(at),
                s.u32(at)
            );
        }
        for (who, info) in [("kernel", &k), ("stack", &s)] {
            let rtt = info.u32(RTT);
            ensure!((1..2_000_000).contains(&rtt), "{who}: rtt {rtt} us");
            ensure!(info.u32(CWND) >= 2, "{who}: cwnd {}", info.u32(CWND));
            let delivered = info.u32(DELIVERED);
            ensure!(delivered >= 10, "{who}: delivered {delivered}");
        }
    }
    Ok(())
}

/// The stack, a router (this namespace), and a peer behind it.
struct Routed {
    lab: Lab,
    far: Namespace,
}

const NEAR: &str = "near0";
const FAR: &str = "far0";

fn sysctl(name: &str, value: &str) -> Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
        .with_context(|| format!("setting {name}"))
}

fn routed(config: &LabConfig) -> Result<Routed> {
    let lab = Lab::start(config)?;
    let far = Namespace::new("far")?;
    create_veth_into(NEAR, FAR, far.as_fd())?;
    // Segments of their true size cross the second link, so that it can drop them.
    no_offload(NEAR)?;
    set_address(NEAR, "10.199.0.1/24".parse()?)?;
    set_up(NEAR)?;
    sysctl("ip_forward", "1")?;
    // To the far end the stack's network looks like its own link's: the router answers for it.
    sysctl(&format!("conf/{NEAR}/proxy_arp"), "1")?;
    far.run(|| -> Result<()> {
        set_address(FAR, "10.199.0.2/8".parse()?)?;
        set_up(FAR)
    })??;
    Ok(Routed { lab, far })
}

impl Routed {
    /// Connected streams: (far end's, stack's).
    fn connect(&self, stack: &Stack) -> Result<(TcpStream, libsocket::TcpStream)> {
        let listener = self.far.run(|| TcpListener::bind("10.199.0.2:0"))??;
        let to: SocketAddr = listener.local_addr()?;
        let ours = stack
            .connect(to)
            .with_context(|| format!("connecting to {to}\n{}", self.lab.log()))?;
        Ok((listener.accept()?.0, ours))
    }
}

/// The size that the path takes falls from 1,500 to 1,300 in the middle of a transfer.
fn falls(router_tells: bool) -> Result<()> {
    let routed = routed(&LabConfig::default())?;
    let stack = Stack::open(routed.lab.path());
    let (theirs, ours) = routed.connect(&stack)?;
    let probe = ours.try_clone()?;
    one_way_and_more(&routed, ours, theirs, router_tells)?;
    let info = info_of_stack(&probe)?;
    let mtu = info.u32(PMTU);
    if router_tells {
        ensure!(mtu == 1300, "path MTU {mtu}");
    } else {
        // A device takes four bytes more than its MTU, for a VLAN's tag.
        ensure!((1000..=1304).contains(&mtu), "path MTU {mtu}");
    }
    Ok(())
}

fn one_way_and_more(
    routed: &Routed,
    ours: libsocket::TcpStream,
    theirs: TcpStream,
    router_tells: bool,
) -> Result<()> {
    let watched = ours.try_clone()?;
    let mover = thread::spawn(move || one_way(ours, theirs, 24 * MIB, Writes::BIG));
    // Some of it crosses as it was.
    let start = Instant::now();
    while info_of_stack(&watched)?.u64(ACKED) < MIB && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(1));
    }
    if router_tells {
        set_mtu(NEAR, 1300)?;
    } else {
        // The receiver's device drops what is longer, and nobody knows.
        routed.far.run(|| set_mtu(FAR, 1300))??;
    }
    let result = mover
        .join()
        .map_err(|_| anyhow::anyhow!("the transfer panicked"))?;
    result.with_context(|| routed.lab.log())?;
    Ok(())
}

fn ecn() -> Result<()> {
    let config = LabConfig {
        extra: "[tcp]\necn = \"on\"\n".to_owned(),
        ..Default::default()
    };
    let routed = routed(&config)?;
    let lab = &routed.lab;
    let stack = Stack::open(lab.path());
    sysctl("tcp_ecn", "1")?;
    for stack_opens in [true, false] {
        let (theirs, ours) = connect(lab, &stack, stack_opens)?;
        both_ways(ours.try_clone()?, theirs.try_clone()?, MIB, Writes::BIG)?;
        let (k, s) = (info_of_kernel(&theirs)?, info_of_stack(&ours)?);
        ensure!(k.u8(OPTIONS) & OPT_ECN != 0, "the kernel has not agreed");
        ensure!(s.u8(OPTIONS) & OPT_ECN != 0, "the stack has not agreed");
    }
    // A router marks everything that waits, in both directions.
    let marks = |device: &str| {
        Command::new("tc")
            .args(["qdisc", "replace", "dev", device, "root", "fq_codel"])
            .args(["ce_threshold", "0us", "ecn"])
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if !marks(NEAR) || !marks(&lab.host_interface) {
        eprintln!("no marks: tc or fq_codel is missing here");
        return Ok(());
    }
    let (theirs, ours) = routed.connect(&stack)?;
    both_ways(ours.try_clone()?, theirs.try_clone()?, 2 * MIB, Writes::BIG)?;
    let (k, s) = (info_of_kernel(&theirs)?, info_of_stack(&ours)?);
    let (kernel, stack) = (k.u32(DELIVERED_CE), s.u32(DELIVERED_CE));
    ensure!(stack > 0, "the stack was told of no mark");
    eprintln!("marks that were echoed: to the stack {stack}, to the kernel {kernel}");
    Ok(())
}
