//! What a datagram costs in udpd, each way. Run with
//! `cargo test --release -p udpd --test cost -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a measurement"
)]

mod common;

use abi::Endpoint;
use common::{App, IPD, UDPD, at, fabric, now};
use runtime::Plumbing;
use shm::SizeClass;
use std::time::Instant;
use udpd::Udpd;

const BATCH: usize = 64;
const ROUNDS: usize = 2000;

#[test]
#[ignore = "a measurement"]
fn cost() {
    let (mut fabric, address) = fabric();
    let mut ipd = fabric.plumbing(IPD);
    let mut udpd = fabric.worker::<Udpd>(UDPD);
    let mut app = App::new(&address, &mut udpd);
    let mut s = app.bound(&mut udpd, "10.77.1.2:5000");
    let link = ipd.link_to(UDPD).unwrap();
    for len in [16usize, 1400] {
        let payload = vec![7u8; len];
        let (mut inward, mut outward) = (0u128, 0u128);
        for _ in 0..ROUNDS {
            let Plumbing {
                arena,
                links,
                alloc: Some(alloc),
                ..
            } = &mut ipd
            else {
                panic!()
            };
            for _ in 0..BATCH {
                let mut skb = alloc.alloc(SizeClass::Small).unwrap();
                let bytes = skb.put(8 + len).unwrap();
                wire::udp::Repr {
                    src_port: 7,
                    dst_port: 5000,
                    len: 8 + len as u16,
                }
                .emit(bytes)
                .unwrap();
                bytes[8..].copy_from_slice(&payload);
                let src = Endpoint::new(at("10.77.1.9:0").ip(), 0);
                let dst = Endpoint::new(at("10.77.1.2:0").ip(), 0);
                let d = skb.desc_mut();
                (d.src, d.dst, d.family, d.protocol) = (src.addr, dst.addr, src.family, 17);
                d.ip_summed = abi::skbuff::checksum::UNNECESSARY;
                links[link].send(skb).unwrap();
            }
            links[link].flush();
            let t = Instant::now();
            udpd.turn(now());
            inward += t.elapsed().as_nanos();
            let mut n = 0;
            while app.recv(&mut s).is_some() {
                n += 1;
            }
            assert_eq!(n, BATCH);
            app.take_tokens(&s);
            for _ in 0..BATCH {
                app.send(&mut s, &payload, Some("10.77.1.9:7"));
            }
            let t = Instant::now();
            udpd.turn(now());
            outward += t.elapsed().as_nanos();
            let mut n = 0;
            links[link].recv(arena, 1024, |_| n += 1);
            assert_eq!(n, BATCH);
        }
        let each = |total: u128| total as f64 / (ROUNDS * BATCH) as f64;
        println!(
            "{len:>5} bytes: in {:.0} ns, out {:.0} ns",
            each(inward),
            each(outward)
        );
    }
}
