//! Random bytes where options should be, on every kind of segment (RFC 9293 3.1: MUST-4 to
//! MUST-7): whatever they say, the engine goes on and stays within its bounds.

use crate::bench::*;
use fastrand::Rng;
use tcpd::engine::{Config, State};
use wire::tcp::Options;

/// Forty bytes in which known kinds are likely, with lengths that are right, wrong, or lead
/// beyond the end.
fn bytes(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![];
    while bytes.len() < 40 {
        match rng.u8(0..4) {
            0 => bytes.push(rng.u8(..)),
            1 => bytes.extend([rng.u8(0..35), rng.u8(0..3)]),
            2 => bytes.extend([rng.u8(0..35), rng.u8(..)]),
            _ => {
                let (kind, len) = *rng
                    .choice(&[
                        (2, 4),
                        (3, 3),
                        (4, 2),
                        (5, 10),
                        (5, 18),
                        (8, 10),
                        (28, 4),
                        (34, 10),
                    ])
                    .unwrap();
                bytes.extend([kind, len]);
                bytes.extend((2..len).map(|_| rng.u8(..)));
            }
        }
    }
    bytes.truncate(4 * rng.usize(0..=10));
    bytes
}

#[test]
fn random_option_bytes() {
    for seed in 0..4_000 {
        let mut rng = Rng::with_seed(seed);
        let config = Config {
            capacity: 64,
            secret: [3; 16],
            ..Config::default()
        };
        let mut b = Bench::new(config);
        b.set(abi::session::SockOpt::FastOpenConnect(rng.bool()));
        b.connect();
        let mut s = seg(SYN | ACK, 0, 1);
        s.options = Options::parse(&bytes(&mut rng), true);
        b.now += 50 * MS;
        b.inject(s);
        assert_eq!(b.state(), State::Established, "seed {seed}");
        let n = b.tcb().negotiated;
        assert!(n.snd_scale <= 14 && n.mss() >= 76, "seed {seed}: {n:?}");
        b.write(5_000);
        for _ in 0..8 {
            let at = b.tcb().received_upto() as u32 + 1;
            let mut s = seg(ACK, at, rng.u32(1..3_000)).len(rng.u32(0..100));
            s.options = Options::parse(&bytes(&mut rng), false);
            b.now += rng.u64(0..300) * MS;
            b.inject(s);
            assert!(b.tcb().is_valid(), "seed {seed}");
        }
    }
}
