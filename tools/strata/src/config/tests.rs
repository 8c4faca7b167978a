//! Every way to be wrong, with the message a person reads.

use super::*;
use abi::config::{EcnMode, MtuProbing, TcpConfig, UdpConfig};
use std::fmt::Write as _;

fn errors(text: &str) -> String {
    match Config::parse(Path::new("strata.toml"), text) {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn parsed(text: &str) -> Config {
    match Config::parse(Path::new("strata.toml"), text) {
        Ok((config, _)) => config,
        Err(error) => panic!("{error}"),
    }
}

const TAP: &str = "[[device]]\nname = \"tap0\"\nkind = \"tap\"\naddresses = [\"10.77.0.2/24\"]\n";

#[test]
fn the_shape_of_the_documentation_is_read() {
    let config = parsed(
        r#"
        [[device]]
        name = "tap0"
        kind = "tap"
        addresses = ["10.77.0.2/24"]
        mtu = 1500

        [[route]]
        to = "default"
        via = "10.77.0.1"

        [dns]
        servers = ["10.77.0.1"]

        [restart]
        hang = "500ms"
        "#,
    );
    let [device] = config.devices.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!(device.name, "tap0");
    assert_eq!(device.kind, DeviceKind::Tap);
    assert_eq!(device.offload, Offload::Full);
    assert!(!device.host_up);
    let [route] = config.routes.as_slice() else {
        panic!("{config:?}")
    };
    assert_eq!(route.to.to_string(), "0.0.0.0/0");
    assert_eq!(route.device, 0);
    assert_eq!(config.restart, RestartPolicy::default());
    assert_eq!(config.dns.len(), 1);
}

#[test]
fn the_example_file_is_valid_and_needs_no_warning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../strata.example.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (config, warnings) = Config::parse(&path, &text).unwrap_or_else(|e| panic!("{e}"));
    assert!(!config.devices.is_empty());
    assert_eq!(warnings, []);
}

/// The example's commented-out lines are examples too: with their `# ` taken away, each section
/// must still be read.
#[test]
fn the_example_files_commented_keys_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../strata.example.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut all = String::new();
    for line in text.lines() {
        let line = line
            .strip_prefix("#: ")
            .map_or(line, |uncommented| uncommented);
        writeln!(all, "{line}").unwrap();
    }
    let (config, _) = Config::parse(&path, &all).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.devices.len() > 1);
    assert_eq!(config.tcp, TcpConfig::default());
    assert_eq!(config.udp, UdpConfig::default());
}

/// "Every key that there is": what tcpd can be told is in the example.
#[test]
fn the_example_file_names_every_key_of_tcp() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../strata.example.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let section = text.split("[tcp]").nth(1).unwrap();
    let section = section.split("[udp]").next().unwrap();
    let fields = serde_json::to_value(TcpConfig::default()).unwrap();
    for field in fields.as_object().unwrap().keys() {
        let key = field.trim_end_matches("_ms").replace('_', "-");
        assert!(
            section.contains(&format!("#: {key} = ")),
            "{key} is missing"
        );
    }
}

/// What is wrong with each of `cases`, one after the other.
fn transcript(cases: &[&str]) -> String {
    let mut all = String::new();
    for case in cases {
        writeln!(all, "{}\n", errors(case)).unwrap();
    }
    all
}

#[test]
fn syntax_and_unknown_keys_are_shown_in_place() {
    insta::assert_snapshot!(transcript(&[
        "[[device]\n",
        &format!("{TAP}mtuu = 1500\n"),
        "[[device]]\nname = \"tap0\"\n",
        "[[device]]\nname = \"tap0\"\nkind = \"tun\"\n",
        &format!("{TAP}[restart]\nhang = 500\n"),
        &format!("{TAP}[restart]\nhang = \"500 parsecs\"\n"),
    ]));
}

#[test]
fn device_errors_name_the_remedy() {
    insta::assert_snapshot!(transcript(&[
        "",
        &TAP.replace("/24", ""),
        &TAP.replace("10.77.0.2", "ten"),
        &TAP.replace("10.77.0.2/24", "10.77.0.0/24"),
        &TAP.replace("10.77.0.2/24", "10.77.0.255/24"),
        &TAP.replace("10.77.0.2/24", "224.0.0.1/24"),
        &TAP.replace("10.77.0.2/24", "127.0.0.1/8"),
        &TAP.replace("tap0", "a-name-that-is-too-long"),
        &format!("{TAP}mtu = 70000\n"),
        &format!("{TAP}mac = \"01:00:5e:00:00:01\"\n"),
        &format!("{TAP}mac = \"02:00\"\n"),
        &format!("{TAP}host-address = \"10.78.0.1/24\"\n"),
        &format!("{TAP}host-address = \"10.77.0.2/24\"\n"),
        &format!("{TAP}host-address = \"10.77.0.1/24\"\n").replace("\"tap\"", "\"packet\""),
        &format!("{TAP}host-up = true\n").replace("\"tap\"", "\"packet\""),
        &format!("{TAP}{TAP}"),
        &format!("{TAP}impairment = {{ loss = 2 }}\n"),
    ]));
}

#[test]
fn route_errors_name_the_remedy() {
    let route = |route: &str| format!("{TAP}[[route]]\n{route}\n");
    insta::assert_snapshot!(transcript(&[
        &route("to = \"default\"\nvia = \"10.78.0.1\""),
        &route("to = \"default\"\nvia = \"10.78.0.1\"\ndev = \"tap0\""),
        &route("to = \"default\"\nvia = \"10.77.0.2\""),
        &route("to = \"10.1.2.3/8\"\nvia = \"10.77.0.1\""),
        &route("to = \"anywhere\""),
        &route("to = \"10.0.0.0/8\"\ndev = \"eth0\""),
        &route("to = \"::/0\"\nvia = \"10.77.0.1\""),
        &route("to = \"default\"\nvia = \"10.77.0.1\"\nsource = \"10.77.0.9\""),
        &route(
            "to = \"default\"\nvia = \"10.77.0.1\"\n[[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.77.0.3\"",
        ),
        &route("to = \"10.0.0.0/8\"\n[[device]]\nname = \"lo\"\nkind = \"loopback\""),
    ]));
}

#[test]
fn the_other_sections_are_checked_too() {
    let with = |text: &str| format!("{TAP}{text}\n");
    insta::assert_snapshot!(transcript(&[
        &with("[restart]\nhang = \"1ms\""),
        &with("[restart]\nbackoff = \"9s\"\nbackoff-max = \"1s\""),
        &with("[tcp]\ncongestion = \"vegas\""),
        &with("[tcp]\nreceive-buffer = [\"1MiB\", \"2MiB\"]"),
        &with("[tcp]\nsend-buffer = [\"64KiB\", \"32KiB\"]"),
        &with("[tcp]\nsend-buffer = \"64KiB\""),
        &with("[tcp]\nmemory = \"80%\""),
        &with("[udp]\nmax-sockets = 1"),
        &with("[cpu]\npin = \"all\""),
        &with("[cpu]\nnice = -40"),
        &with("[sizes]\nreceive-small = 1"),
        &with("[access]\nmode = \"rw\""),
        &with("[dns]\nservers = [\"ns.example\"]"),
        &format!("name = \"a/b\"\n{TAP}"),
    ]));
}

#[test]
fn an_address_family_that_is_not_served_is_warned_about() {
    let text = TAP.replace("10.77.0.2/24", "fd00::2/64");
    let path = Path::new("strata.toml");
    let (_, warnings) = Config::parse(path, &text).unwrap();
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    insta::assert_snapshot!(diagnostic::render_warning(path, &text, warning));
}

#[test]
fn all_problems_are_reported_at_once_in_the_files_order() {
    let text = format!("{TAP}mtu = 1\n[[route]]\nto = \"default\"\nvia = \"10.1.1.1\"\n");
    let errors = errors(&text);
    let mtu = errors.find("strata.toml:5:7").unwrap();
    let via = errors.find("strata.toml:8:7").unwrap();
    assert!(mtu < via, "{errors}");
}

#[test]
fn words_become_values() {
    let config = parsed(&format!(
        "{TAP}host-address = \"10.77.0.1/24\"\nmac = \"02:00:00:00:00:07\"\noffload = \"checksum\"\n\
         impairment = {{ seed = 7, loss = \"1%\", delay = \"10ms\", rate = \"100mbit\" }}\n\
         [cpu]\npin = 1\nnice = -3\n[tcp]\ntime-wait = \"1s\"\necn = \"on\"\nmtu-probing = \"always\"\n[access]\nmode = \"666\"\n"
    ));
    let [device] = config.devices.as_slice() else {
        panic!("{config:?}")
    };
    assert!(device.host_up);
    assert_eq!(device.mac, Some([2, 0, 0, 0, 0, 7]));
    assert_eq!(device.offload, Offload::Checksum);
    assert_eq!(device.impairment.loss, 0.01);
    assert_eq!(device.impairment.delay_us, 10_000);
    assert_eq!(device.impairment.rate_kbps, 100_000);
    assert_eq!(config.pin, Pin::Core(1));
    assert_eq!(config.nice, -3);
    assert_eq!(config.tcp.time_wait_ms, 1000);
    assert_eq!(config.tcp.ecn, EcnMode::On);
    assert_eq!(config.tcp.mtu_probing, MtuProbing::Always);
    assert_eq!(config.access_mode, 0o666);
}
