//! udpd over the real ipd, by loopback: applications talk to each other through both.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that fails should say so at once"
)]

mod common;

use abi::session::SocketKind;
use common::{App, IPD, UDPD, at, fabric, now};
use ipd::Ipd;
use runtime::testing::{Fabric, Worker};
use udpd::Udpd;

struct Host {
    fabric: Fabric,
    ipd: Option<Worker<Ipd>>,
    udpd: Option<Worker<Udpd>>,
    app: App,
}

impl Host {
    fn new() -> Self {
        let (mut fabric, address) = fabric();
        let ipd = fabric.worker::<Ipd>(IPD);
        let mut udpd = fabric.worker::<Udpd>(UDPD);
        udpd.settle(now());
        let app = App::new(&address, &mut udpd);
        let mut this = Self {
            fabric,
            ipd: Some(ipd),
            udpd: Some(udpd),
            app,
        };
        this.run();
        this
    }

    fn run(&mut self) {
        for _ in 0..6 {
            self.udpd.as_mut().unwrap().settle(now());
            self.ipd.as_mut().unwrap().settle(now());
        }
    }
}

#[test]
fn two_applications_talk_by_loopback() {
    let mut h = Host::new();
    for (bind, to) in [
        ("0.0.0.0:5000", "127.0.0.1:5000"),
        ("10.77.1.2:5001", "10.77.1.2:5001"),
    ] {
        let udpd = h.udpd.as_mut().unwrap();
        let mut server = h.app.bound(udpd, bind);
        let mut client = h.app.socket(udpd, SocketKind::Datagram, false);
        h.app.connect(udpd, &client, to);
        for size in [0, 1, 1000, 9000, 65_507] {
            let payload = vec![size as u8; size];
            h.app.send(&mut client, &payload, None);
            h.run();
            let got = h
                .app
                .recv(&mut server)
                .unwrap_or_else(|| panic!("{to} {size}"));
            assert_eq!(got.bytes, payload);
            assert_eq!(got.to, at(to));
            h.app
                .send(&mut server, &payload, Some(&got.from.to_string()));
            h.run();
            assert_eq!(h.app.recv(&mut client).unwrap().bytes, payload);
        }
    }
    assert_eq!(h.fabric.free_slots(UDPD), h.fabric.slots());
}

#[test]
fn a_port_that_nobody_has_refuses_the_connected() {
    let mut h = Host::new();
    let mut client = h
        .app
        .socket(h.udpd.as_mut().unwrap(), SocketKind::Datagram, false);
    h.app
        .connect(h.udpd.as_mut().unwrap(), &client, "127.0.0.1:5999");
    h.app.send(&mut client, b"anybody?", None);
    h.run();
    assert_eq!(h.app.error(&mut client), Some(libc::ECONNREFUSED));
}

#[test]
fn a_ping_to_oneself_is_answered() {
    let mut h = Host::new();
    let mut s = h
        .app
        .socket(h.udpd.as_mut().unwrap(), SocketKind::Ping, false);
    h.app
        .send(&mut s, &[8, 0, 0, 0, 0, 0, 0, 1, b'a'], Some("10.77.1.2:0"));
    h.run();
    let got = h.app.recv(&mut s).unwrap();
    assert_eq!((got.bytes[0], got.bytes[7], got.bytes[8]), (0, 1, b'a'));
}

#[test]
fn sockets_and_traffic_go_on_over_deaths_of_either() {
    let mut h = Host::new();
    let udpd = h.udpd.as_mut().unwrap();
    let mut server = h.app.bound(udpd, "0.0.0.0:5000");
    let mut client = h.app.socket(udpd, SocketKind::Datagram, false);
    h.app.connect(udpd, &client, "10.77.1.2:5000");
    for round in 0..20u8 {
        if round % 2 == 0 {
            h.udpd = None;
            h.udpd = Some(h.fabric.worker::<Udpd>(UDPD));
        } else {
            h.ipd = None;
            h.ipd = Some(h.fabric.worker::<Ipd>(IPD));
        }
        h.run();
        h.app.send(&mut client, &[round], None);
        h.run();
        assert_eq!(
            h.app.recv(&mut server).unwrap().bytes,
            [round],
            "round {round}"
        );
    }
}
