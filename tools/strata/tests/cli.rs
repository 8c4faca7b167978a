//! The command line as a person meets it: what it prints, and its exit status.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, which clippy does not take for tests"
)]

use assert_cmd::Command;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

/// `strata` in an empty directory, with a run directory of its own.
fn strata(dir: &TempDir) -> Command {
    strata_by(dir, assert_cmd::cargo::cargo_bin!("strata"))
}

/// Another program, which starts `strata`.
fn strata_by(dir: &TempDir, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .env_remove("STRATA_NAME")
        .env("STRATA_RUN_DIR", dir.path().join("run"))
        .env("STRATA_LOG", "info");
    command
}

struct Output {
    status: i32,
    out: String,
    err: String,
}

fn run(dir: &TempDir, arguments: &[&str]) -> Output {
    let output = strata(dir).args(arguments).output().unwrap();
    Output {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn here() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_names_every_command_and_hides_what_is_not_for_people() {
    let dir = here();
    let help = run(&dir, &["--help"]);
    assert_eq!(help.status, 0);
    for command in [
        "up", "down", "status", "restart", "ping", "fetch", "run", "impair", "man",
    ] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}");
    }
    assert!(!help.out.contains("__"), "{}", help.out);
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let dir = here();
    for wrong in [
        &["frobnicate"][..],
        &[],
        &["restart"],
        &["ping", "not-an-address"],
        &["ping", "10.0.0.1", "-c", "0"],
        &["up", "--config", "missing.toml"],
        &["up"],
        &["--name", "a/b", "status"],
        &["fetch", "https://10.0.0.1/"],
        &["run", "curl", "--help"],
        &["impair", "tap0", "--loss", "2"],
    ] {
        let output = run(&dir, wrong);
        assert_eq!(output.status, 2, "{wrong:?}: {}", output.err);
        assert!(!output.err.is_empty());
        assert!(output.out.is_empty());
    }
}

#[test]
fn a_wrong_configuration_names_the_line_and_the_remedy() {
    let dir = here();
    let text = "[[device]]\nname = \"tap0\"\nkind = \"tap\"\naddresses = [\"10.77.0.2\"]\n";
    fs::write(dir.path().join("strata.toml"), text).unwrap();
    let output = run(&dir, &["up"]);
    assert_eq!(output.status, 2);
    assert_eq!(
        output.err,
        "strata.toml:4:14: error: address `10.77.0.2` has no prefix length\n \
         4 | addresses = [\"10.77.0.2\"]\n   |              ^^^^^^^^^^^\n  \
         help: write it with the network's, for example \"10.77.0.2/24\"\n"
    );
    assert!(!dir.path().join("run").exists());
}

#[test]
fn the_example_can_be_checked_as_it_is_printed() {
    let dir = here();
    let example = run(&dir, &["example"]);
    fs::write(dir.path().join("strata.toml"), example.out).unwrap();
    let check = run(&dir, &["up", "--check"]);
    assert_eq!(
        (check.status, check.out.as_str()),
        (0, "strata.toml: good\n")
    );
}

#[test]
fn asking_a_constellation_that_does_not_run_says_how_to_start_it() {
    let dir = here();
    for command in [
        &["status"][..],
        &["down"],
        &["restart", "tcpd"],
        &["counters"],
    ] {
        let output = run(&dir, &[&["--name", "lab"], command].concat());
        assert_eq!(output.status, 1, "{command:?}");
        assert!(
            output.err.contains("`strata up --name lab`"),
            "{}",
            output.err
        );
    }
    let all = run(&dir, &["status", "--all"]);
    assert_eq!(
        (all.status, all.out.as_str()),
        (0, "no constellation is running\n")
    );
    let all = run(&dir, &["status", "--all", "--json"]);
    assert_eq!(all.out, "[]\n");
}

#[test]
fn completions_and_manual_pages_are_complete() {
    let dir = here();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&dir, &["completions", shell]);
        assert_eq!(script.status, 0);
        assert!(script.out.contains("restart"), "{shell}");
    }
    assert_eq!(run(&dir, &["man", "--dir", "man"]).status, 0);
    for page in ["strata.1", "strata-up.1", "strata-fetch.1"] {
        let page = fs::read_to_string(dir.path().join("man").join(page)).unwrap();
        assert!(page.contains(".TH"));
    }
    assert!(!dir.path().join("man/strata-__supervise.1").exists());
    assert!(run(&dir, &["man"]).out.contains(".TH"));
}

#[test]
fn a_constellation_of_real_layers_goes_up_and_down() {
    let dir = here();
    idle(&dir);
    let up = run(&dir, &["up"]);
    assert_eq!(up.status, 0, "{}", up.err);
    let down = Down(&dir);
    for layer in ["netdevd@lo0", "ipd", "tcpd", "udpd"] {
        assert!(up.out.contains(layer), "{}", up.out);
    }
    let again = run(&dir, &["up"]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("`default` is taken"), "{}", again.err);
    let status: serde_json::Value =
        serde_json::from_str(&run(&dir, &["status", "--json"]).out).unwrap();
    assert_eq!(status["daemons"].as_array().unwrap().len(), 4);
    assert_eq!(status["daemons"][0]["state"], "running");
    let restart = run(&dir, &["restart", "tcpd"]);
    assert_eq!(restart.status, 0, "{}", restart.err);
    assert!(
        run(&dir, &["status", "--routes"])
            .out
            .contains("10.1.1.0/24")
    );
    assert!(run(&dir, &["status", "--all"]).out.contains("4 of 4"));
    assert_eq!(run(&dir, &["counters", "ipd"]).status, 0);
    drop(down);
    assert!(!dir.path().join("run").exists(), "something is left behind");
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let dir = here();
    let text =
        "[[device]]\nname = \"nosuchdev\"\nkind = \"packet\"\naddresses = [\"10.1.1.1/24\"]\n";
    fs::write(dir.path().join("strata.toml"), text).unwrap();
    let up = run(&dir, &["up"]);
    assert_eq!(up.status, 1);
    assert!(up.err.contains("interface nosuchdev"), "{}", up.err);
    assert!(up.err.contains("`ip link"), "{}", up.err);
    assert!(!dir.path().join("run").exists(), "something is left behind");
}

fn idle(dir: &TempDir) {
    let text = "[[device]]\nname = \"lo0\"\nkind = \"loopback\"\naddresses = [\"10.1.1.1/24\"]\n\
                [cpu]\npin = \"off\"\n";
    fs::write(dir.path().join("strata.toml"), text).unwrap();
}

/// The constellation as `strata status` shows it.
fn shown(dir: &TempDir) -> serde_json::Value {
    serde_json::from_str(&run(dir, &["status", "--json"]).out).unwrap()
}

fn pid(value: &serde_json::Value) -> Pid {
    Pid::from_raw(value["pid"].as_i64().unwrap() as i32)
}

fn daemons(status: &serde_json::Value) -> Vec<Pid> {
    let daemons = status["daemons"].as_array().unwrap();
    daemons.iter().map(pid).collect()
}

fn has_ended(pid: Pid) -> bool {
    // A zombie of whoever adopts orphans here counts as ended.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// The processes in reserve.
fn spares(status: &serde_json::Value) -> Vec<Pid> {
    let daemons = status["daemons"].as_array().unwrap().iter();
    daemons
        .filter_map(|d| Some(Pid::from_raw(d["spare"].as_i64()? as i32)))
        .collect()
}

#[test]
fn daemons_outlive_their_supervisor_and_can_be_ended() {
    let dir = here();
    idle(&dir);
    assert_eq!(run(&dir, &["up"]).status, 0);
    let _down = Down(&dir);
    let mut status = shown(&dir);
    while spares(&status).len() < 4 {
        sleep(Duration::from_millis(5));
        status = shown(&dir);
    }
    let daemons = daemons(&status);
    kill(pid(&status), Signal::SIGKILL).unwrap();
    sleep(Duration::from_millis(700));
    for daemon in &daemons {
        assert!(!has_ended(*daemon), "{daemon} died with the supervisor");
    }
    for spare in spares(&status) {
        assert!(has_ended(spare), "{spare} outlives its supervisor");
    }
    let ping = run(&dir, &["ping", "-c", "1", "10.1.1.1"]);
    assert_eq!(ping.status, 0, "{}{}", ping.out, ping.err);
    let down = run(&dir, &["down"]);
    // The four layers and the keeper.
    assert_eq!(down.out, "ended 5 processes whose supervisor had died\n");
    for daemon in &daemons {
        assert!(has_ended(*daemon));
    }
    assert!(!dir.path().join("run").exists());
}

/// Whether the process has the file open.
fn has_open(pid: Pid, file: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.into_iter().any(|target| target == file)
}

#[test]
fn nothing_that_the_shell_had_open_is_kept() {
    let dir = here();
    idle(&dir);
    let file = dir.path().canonicalize().unwrap().join("held");
    let up = strata_by(&dir, "sh")
        .args(["-c", "exec 9>held && exec \"$0\" up"])
        .arg(assert_cmd::cargo::cargo_bin!("strata"))
        .output()
        .unwrap();
    assert!(up.status.success());
    let _down = Down(&dir);
    let status = shown(&dir);
    let keeper = Pid::from_raw(status["keeper"].as_i64().unwrap() as i32);
    for process in daemons(&status).into_iter().chain([pid(&status), keeper]) {
        assert!(!has_open(process, &file), "{process} of {status}");
    }
}

/// The value of `key` in the process's `status` file.
fn of_process(pid: Pid, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// A supervisor with a second thread waited for two grace periods of RCU, tens of milliseconds,
/// while it took a thousand descriptors over.
#[test]
fn each_process_has_room_for_descriptors_before_it_has_threads() {
    let dir = here();
    idle(&dir);
    let up = run(&dir, &["up"]);
    assert_eq!(up.status, 0, "{}", up.err);
    let _down = Down(&dir);
    let status = shown(&dir);
    let keeper = Pid::from_raw(status["keeper"].as_i64().unwrap() as i32);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    for process in daemons(&status).into_iter().chain([pid(&status), keeper]) {
        let room: u64 = of_process(process, "FDSize").parse().unwrap();
        assert!(room >= limit.min(16_384), "{room} in {process} of {status}");
    }
}

/// They restore themselves wherever there is room, and work on the one core.
#[test]
fn daemons_share_a_core_once_they_are_ready() {
    let dir = here();
    idle(&dir);
    let file = dir.path().join("strata.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"off\"", "\"auto\"")).unwrap();
    let up = run(&dir, &["up"]);
    assert_eq!(up.status, 0, "{}", up.err);
    let _down = Down(&dir);
    let allowed = of_process(Pid::this(), "Cpus_allowed_list");
    let last = allowed.rsplit([',', '-']).next().unwrap();
    for daemon in daemons(&shown(&dir)) {
        assert_eq!(of_process(daemon, "Cpus_allowed_list"), last);
    }
}

#[test]
fn a_new_supervisor_adopts_what_runs() {
    let dir = here();
    idle(&dir);
    assert_eq!(run(&dir, &["up"]).status, 0);
    let _down = Down(&dir);
    let first = shown(&dir);
    let killed = daemons(&first)[1];
    kill(pid(&first), Signal::SIGKILL).unwrap();
    // One that dies in between is started again by the next supervisor.
    kill(killed, Signal::SIGKILL).unwrap();
    sleep(Duration::from_millis(50));
    let up = run(&dir, &["up"]);
    assert_eq!(up.status, 0, "{}{}", up.out, up.err);
    let second = shown(&dir);
    assert_ne!(pid(&first), pid(&second));
    assert_eq!(first["keeper"], second["keeper"]);
    for (before, after) in daemons(&first).into_iter().zip(daemons(&second)) {
        assert_eq!(before == after, before != killed, "{before} {after}");
    }
    assert_eq!(run(&dir, &["ping", "-c", "1", "10.1.1.1"]).status, 0);
    // It sees to them as the first did: restarts what dies, also what it has not started itself.
    assert_eq!(run(&dir, &["restart", "all"]).status, 0);
    kill(daemons(&shown(&dir))[0], Signal::SIGKILL).unwrap();
    sleep(Duration::from_millis(300));
    let third = shown(&dir);
    assert!(
        third["daemons"]
            .as_array()
            .unwrap()
            .iter()
            .all(|d| d["state"] == "running"),
        "{third}"
    );
    // Another configuration is not what runs.
    kill(pid(&third), Signal::SIGKILL).unwrap();
    let text = fs::read_to_string(dir.path().join("strata.toml")).unwrap();
    fs::write(
        dir.path().join("strata.toml"),
        text.replace("10.1.1.1", "10.1.1.2"),
    )
    .unwrap();
    let other = run(&dir, &["up"]);
    assert_eq!(other.status, 1);
    assert!(other.err.contains("another configuration"), "{}", other.err);
    fs::write(dir.path().join("strata.toml"), text).unwrap();
    assert_eq!(run(&dir, &["up"]).status, 0);
    let fourth = shown(&dir);
    assert_eq!(daemons(&third), daemons(&fourth));
    assert_eq!(run(&dir, &["down"]).status, 0);
    for process in daemons(&fourth) {
        assert!(has_ended(process));
    }
    assert!(!dir.path().join("run").exists());
}

#[test]
fn an_upgrade_to_what_cannot_read_the_memory_changes_nothing() {
    let dir = here();
    idle(&dir);
    assert_eq!(run(&dir, &["up"]).status, 0);
    let _down = Down(&dir);
    let before = daemons(&shown(&dir));
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        name.to_owned()
    };
    let other = script("other", "echo '{\"tcpd\": \"0/0\", \"ipd\": \"0/0\"}'");
    let broken = script("broken", "exit 1");
    for (layer, exe, why) in [
        ("tcpd", other.as_str(), "cannot take over tcpd"),
        ("udpd", &other, "knows no udpd"),
        ("all", &broken, "no build of strata"),
        ("tcpd", "missing", "cannot find missing"),
        ("nonsense", &other, "no layer is called"),
    ] {
        let upgrade = run(&dir, &["upgrade", layer, "--exe", exe]);
        assert_eq!(upgrade.status, 1);
        assert!(upgrade.err.contains(why), "{}", upgrade.err);
    }
    assert_eq!(daemons(&shown(&dir)), before);
    let this = assert_cmd::cargo::cargo_bin!("strata");
    let upgrade = run(&dir, &["upgrade", "all", "--exe", this.to_str().unwrap()]);
    assert_eq!(upgrade.status, 0, "{}", upgrade.err);
    assert!(
        daemons(&shown(&dir))
            .iter()
            .all(|pid| !before.contains(pid))
    );
}

#[test]
fn a_keeper_that_dies_is_replaced_and_given_everything() {
    let dir = here();
    idle(&dir);
    assert_eq!(run(&dir, &["up"]).status, 0);
    let _down = Down(&dir);
    let first = shown(&dir);
    let keeper = |status: &serde_json::Value| {
        status["keeper"]
            .as_i64()
            .map(|pid| Pid::from_raw(pid as i32))
    };
    kill(keeper(&first).unwrap(), Signal::SIGKILL).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while keeper(&shown(&dir)).is_none_or(|pid| Some(pid) == keeper(&first)) {
        assert!(std::time::Instant::now() < deadline, "no new keeper");
        sleep(Duration::from_millis(5));
    }
    // The new one can hand over as well.
    kill(pid(&first), Signal::SIGKILL).unwrap();
    let up = run(&dir, &["up"]);
    assert_eq!(up.status, 0, "{}{}", up.out, up.err);
    assert_eq!(daemons(&first), daemons(&shown(&dir)));
    assert_eq!(run(&dir, &["ping", "-c", "1", "10.1.1.1"]).status, 0);
    let last = keeper(&shown(&dir)).unwrap();
    assert_eq!(run(&dir, &["down"]).status, 0);
    sleep(Duration::from_millis(50));
    assert!(has_ended(last), "the keeper is left behind");
}

#[test]
fn in_the_foreground_an_interrupt_stops_everything() {
    let dir = here();
    idle(&dir);
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("strata"))
        .args(["up", "--foreground", "--json"])
        .current_dir(&dir)
        .env("STRATA_RUN_DIR", dir.path().join("run"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut status = serde_json::Deserializer::from_reader(child.stdout.take().unwrap())
        .into_iter::<serde_json::Value>();
    let status = status.next().unwrap().unwrap();
    assert_eq!(status["daemons"][3]["name"], "udpd");
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!dir.path().join("run").exists());
}

/// Stops the constellation whatever the test does.
struct Down<'a>(&'a TempDir);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let down = run(self.0, &["down"]);
        // Most tests have taken it down themselves.
        if !std::thread::panicking() {
            let gone = down.err.contains("not running") || !self.0.path().join("run").exists();
            assert!(down.status == 0 || gone, "{}", down.err);
        }
        let log = Path::new("run/default/log");
        if let Ok(log) = fs::read_to_string(self.0.path().join(log)) {
            eprintln!("{log}");
        }
    }
}
