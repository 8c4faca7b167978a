use super::*;
use abi::ServiceId;
use abi::config::{Impairment, Offload, RouteConfig, TcpConfig, UdpConfig};

fn device(index: u16, kind: DeviceKind, addresses: &[&str], mtu: u16) -> DeviceConfig {
    DeviceConfig {
        index: DevIndex(index),
        name: format!("dev{index}"),
        kind,
        service: ServiceId(u8::try_from(index).unwrap()),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        mtu,
        mac: [2, 0, 0, 0, 0, 1],
        offload: Offload::Full,
        impairment: Impairment::default(),
    }
}

fn route(to: &str, via: Option<&str>, device: u16, metric: u32) -> RouteConfig {
    RouteConfig {
        to: to.parse().unwrap(),
        via: via.map(|v| v.parse().unwrap()),
        device: DevIndex(device),
        source: None,
        metric,
    }
}

fn stack() -> StackConfig {
    StackConfig {
        name: "test".to_owned(),
        devices: vec![
            device(
                1,
                DeviceKind::Tap,
                &["10.77.0.2/24", "192.168.5.1/16", "fd77::2/64"],
                1500,
            ),
            device(2, DeviceKind::Packet, &["10.88.0.2/31"], 9000),
            device(3, DeviceKind::Loopback, &["127.0.0.1/8"], 65_535),
        ],
        routes: vec![
            route("0.0.0.0/0", Some("10.77.0.1"), 1, 100),
            route("0.0.0.0/0", Some("10.88.0.3"), 2, 50),
            route("172.16.0.0/12", Some("192.168.0.9"), 1, 0),
            route("172.16.4.0/24", None, 2, 0),
            route("10.77.0.0/24", Some("10.88.0.3"), 2, 0),
            route("::/0", Some("fd77::1"), 1, 0),
        ],
        links: Vec::new(),
        dns: Vec::new(),
        tcp: TcpConfig::default(),
        udp: UdpConfig::default(),
        secret: [0; 16],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to(dst: &str) -> (u16, String, String, u16) {
    let hop = Fib::new(&stack()).lookup(ip(dst)).unwrap();
    assert!(!hop.local && !hop.broadcast);
    (
        hop.device.0,
        hop.next_hop.to_string(),
        hop.source.to_string(),
        hop.mtu,
    )
}

fn expect(device: u16, next: &str, source: &str, mtu: u16) -> (u16, String, String, u16) {
    (device, next.to_owned(), source.to_owned(), mtu)
}

#[test]
fn the_longest_prefix_wins_then_the_lowest_metric() {
    assert_eq!(to("10.77.0.9"), expect(1, "10.77.0.9", "10.77.0.2", 1500));
    assert_eq!(to("8.8.8.8"), expect(2, "10.88.0.3", "10.88.0.2", 9000));
    assert_eq!(
        to("172.16.3.1"),
        expect(1, "192.168.0.9", "192.168.5.1", 1500)
    );
    assert_eq!(to("172.16.4.1"), expect(2, "172.16.4.1", "10.88.0.2", 9000));
    assert_eq!(to("2001:db8::1"), expect(1, "fd77::1", "fd77::2", 1500));
    assert_eq!(to("fd77::9"), expect(1, "fd77::9", "fd77::2", 1500));
}

#[test]
fn own_addresses_and_loopback_are_local() {
    let fib = Fib::new(&stack());
    for own in [
        "10.77.0.2",
        "192.168.5.1",
        "10.88.0.2",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "fd77::2",
    ] {
        let hop = fib.lookup(ip(own)).unwrap();
        assert!(hop.local && fib.is_local(ip(own)), "{own}");
        assert_eq!(hop.source, ip(own));
    }
    assert!(!fib.is_local(ip("10.77.0.1")));
}

#[test]
fn broadcasts_are_told_from_unicast() {
    let fib = Fib::new(&stack());
    for (dst, device) in [
        ("10.77.0.255", 1),
        ("192.168.255.255", 1),
        ("255.255.255.255", 2),
    ] {
        let hop = fib.lookup(ip(dst)).unwrap();
        assert!(hop.broadcast && fib.is_broadcast(ip(dst)), "{dst}");
        assert_eq!((hop.device.0, hop.next_hop), (device, ip(dst)));
    }
    // RFC 3021: both addresses of a /31 are hosts.
    let hop = fib.lookup(ip("10.88.0.3")).unwrap();
    assert!(!hop.broadcast);
    assert_eq!(hop.next_hop, ip("10.88.0.3"));
    // Multicast goes to the link, not to the gateway.
    let hop = fib.lookup(ip("224.0.0.251")).unwrap();
    assert_eq!((hop.device.0, hop.next_hop), (2, ip("224.0.0.251")));
}

#[test]
fn no_route_is_none_and_generations_differ() {
    let mut alone = stack();
    alone.routes.clear();
    let (a, b) = (Fib::new(&alone), Fib::new(&alone));
    assert_eq!(a.lookup(ip("8.8.8.8")), None);
    assert_eq!(a.lookup(ip("2001:db8::1")), None);
    assert_ne!(a.generation(), b.generation());
    assert_eq!(a.routes().len(), 5);
}
