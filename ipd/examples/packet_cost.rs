//! What the engine costs a packet: `cargo run --release -p ipd --example packet_cost`.
//!
//! Each figure includes allocating, handing over and freeing the slot, which is what `hand over`
//! alone shows.

use abi::config::{
    DeviceConfig, DeviceKind, Impairment, Offload, StackConfig, TcpConfig, UdpConfig,
};
use abi::skbuff::flag;
use abi::{DevIndex, Endpoint, PoolId, ServiceId};
use anyhow::Context as _;
use ipd::engine::{Action, Engine, Env, Upper};
use shm::{Allocator, Arena, Pool, PoolLayout, SizeClass, SkBuff};
use std::net::Ipv4Addr;
use std::time::Instant;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const NEIGHBOUR: ServiceId = ServiceId(1);
const IPD: ServiceId = ServiceId(2);
const ROUNDS: u32 = 20_000;
const BATCH: u32 = 64;

fn stack() -> anyhow::Result<StackConfig> {
    let device = DeviceConfig {
        index: DevIndex(1),
        name: "dev1".to_owned(),
        kind: DeviceKind::Tap,
        service: NEIGHBOUR,
        addresses: vec!["10.77.0.2/24".parse()?],
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, 2],
        offload: Offload::Full,
        impairment: Impairment::default(),
    };
    Ok(StackConfig {
        name: "cost".to_owned(),
        devices: vec![device],
        routes: Vec::new(),
        links: Vec::new(),
        dns: Vec::new(),
        tcp: TcpConfig::default(),
        udp: UdpConfig::default(),
        secret: [3; 16],
    })
}

struct Bench {
    engine: Engine,
    arena: Arena,
    alloc: Allocator,
    theirs: Allocator,
    out: Vec<Action>,
}

impl Bench {
    fn run(
        &mut self,
        what: &str,
        fill: impl Fn(&mut SkBuff) -> Option<()>,
        act: impl Fn(&mut Engine, &mut Env<'_>, SkBuff),
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            for _ in 0..BATCH {
                let mut skb = self
                    .theirs
                    .alloc(SizeClass::Small)
                    .context("out of slots")?;
                fill(&mut skb).context("the packet does not fit")?;
                let skb = self.arena.claim(skb.into_handle(), NEIGHBOUR)?;
                let mut env = Env {
                    now: 1,
                    arena: &self.arena,
                    alloc: &mut self.alloc,
                    out: &mut self.out,
                };
                act(&mut self.engine, &mut env, skb);
            }
            self.out.clear();
        }
        let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS * BATCH);
        println!("{what:<28}{each:>8.1} ns");
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let pool = |id: ServiceId| -> anyhow::Result<&'static Pool> {
        let fd = shm::pool::create("cost", PoolLayout::RECEIVE)?;
        Ok(Pool::attach(PoolId(id.0), &fd)?)
    };
    let (theirs, own) = (pool(NEIGHBOUR)?, pool(IPD)?);
    let mut arena = Arena::new(IPD);
    arena.add_pool(theirs);
    arena.add_pool(own);
    let mut engine = Engine::new(&stack()?, 0, false);
    engine.register(Upper(0), [6, 17].into_iter());
    let mut bench = Bench {
        engine,
        arena,
        alloc: Allocator::new(own, IPD),
        theirs: Allocator::new(theirs, NEIGHBOUR),
        out: Vec::new(),
    };

    let header = |src, dst, protocol, len: u16| {
        let total_len = 20 + len;
        let repr = wire::ipv4::Repr {
            src,
            dst,
            protocol,
            total_len,
            ..wire::ipv4::Repr::default()
        };
        let mut bytes = vec![0; usize::from(total_len)];
        repr.emit(&mut bytes).map(|()| bytes)
    };
    let segment = header(PEER, OWN, 6, 1480)?;
    let mut echo = header(PEER, OWN, 1, 64)?;
    if let Some(message) = echo.get_mut(20..) {
        message.copy_from_slice(&[&[8, 0, 0xf7, 0xff][..], &[0; 60]].concat());
    }
    let mut arp = vec![0; 28];
    wire::arp::Repr {
        operation: wire::arp::Operation::Request,
        sender_mac: wire::MacAddr([2, 0, 0, 0, 0, 1]),
        sender_ip: PEER,
        target_mac: wire::MacAddr::UNSPECIFIED,
        target_ip: OWN,
    }
    .emit(&mut arp)?;
    let received = |bytes: Vec<u8>, ethertype| {
        move |skb: &mut SkBuff| {
            skb.desc_mut().ethertype = ethertype;
            skb.put(bytes.len()).map(|to| to.copy_from_slice(&bytes))
        }
    };
    let sent = |skb: &mut SkBuff| {
        let d = skb.desc_mut();
        (d.protocol, d.family, d.flags) = (6, 2, flag::DONT_FRAG);
        d.dst = Endpoint::new(PEER.into(), 0).addr;
        d.src = Endpoint::new(OWN.into(), 0).addr;
        skb.put(20).map(|_| ())
    };
    let input = |engine: &mut Engine, env: &mut Env<'_>, skb| engine.input(env, DevIndex(1), skb);
    let output = |engine: &mut Engine, env: &mut Env<'_>, skb| engine.output(env, Upper(0), skb);

    bench.run("ARP request answered", received(arp, 0x0806), input)?;
    bench.run("hand over", |_| Some(()), |_, _, skb| drop(skb))?;
    bench.run("segment in, delivered", received(segment, 0x0800), input)?;
    bench.run("segment out, framed", sent, output)?;
    bench.run("echo request answered", received(echo, 0x0800), input)?;
    let mut counts = Vec::new();
    bench.engine.counters.take(|i, n| counts.push((i, n)));
    for (index, n) in counts {
        let name = ipd::engine::counters::NAMES
            .get(index)
            .copied()
            .unwrap_or("?");
        println!("  {name:<26}{n:>10}");
    }
    Ok(())
}
