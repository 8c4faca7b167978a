//! The supervisor with real processes that do nothing: this test is its own worker executable,
//! which is why it has no harness.
//!
//! `cargo test -p strata --test supervisor -- NAME` runs those whose name contains NAME.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test without harness, which clippy does not take for one"
)]

use abi::config::DaemonConfig;
use abi::control::Query;
use abi::plumbing::{StoreClass, StoreKey};
use abi::{Nanos, RegionId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{Boot, Context, Plumbing, Service};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use strata::admin::{Answer, CallError, DaemonState, DaemonStatus, Request, Status, call};
use strata::config::Config;
use strata::rundir::RunDir;
use strata::supervisor::{self, Options};

/// A daemon that serves nobody. It stores one descriptor in its first life.
struct Idle {
    stored: usize,
    incarnation: u32,
    regions: usize,
}

impl Service for Idle {
    const COUNTERS: &'static [&'static str] = &["idle_polls"];

    fn restore(
        config: &DaemonConfig,
        plumbing: &mut Plumbing,
        _now: Nanos,
    ) -> anyhow::Result<Self> {
        let role = config.role.name();
        if std::env::var("IDLE_FAILS").is_ok_and(|fails| fails == role) {
            anyhow::bail!("told to fail");
        }
        if config.incarnation == 0 {
            let (one, other) = UnixStream::pair()?;
            let key = |class, id| StoreKey {
                class,
                id,
                incarnation: 1,
            };
            plumbing
                .store
                .store(key(StoreClass::Shadow, 7), one.as_fd());
            plumbing
                .store
                .store(key(StoreClass::Shadow, 8), other.as_fd());
            plumbing.store.forget(key(StoreClass::Shadow, 8));
            if role == "tcpd" {
                let region = RegionId::of_session(config.service, 1);
                let memory = shm::mapping::create("region", 4096)?;
                plumbing.store.share_region(region, memory.as_fd());
            }
            for id in 0..count_of("IDLE_STORES") {
                plumbing
                    .store
                    .store(key(StoreClass::Shadow, 100 + id), one.as_fd());
            }
            plumbing.store.flush()?;
        }
        Ok(Self {
            stored: plumbing.stored.len(),
            incarnation: config.incarnation,
            regions: 0,
        })
    }

    fn poll(&mut self, _cx: &mut Context<'_>, _budget: usize) -> usize {
        0
    }

    fn release(&mut self, _cx: &mut Context<'_>) {}

    fn deadline(&self) -> Option<Nanos> {
        None
    }

    fn region(&mut self, _id: RegionId, memory: Option<OwnedFd>, _cx: &mut Context<'_>) {
        self.regions += usize::from(memory.is_some());
    }

    fn query(&mut self, _what: Query, _: &mut Context<'_>) -> (Vec<String>, Vec<Vec<String>>) {
        let row = [
            self.stored.to_string(),
            self.incarnation.to_string(),
            self.regions.to_string(),
        ];
        let columns = ["stored", "incarnation", "regions"].map(str::to_owned);
        (columns.to_vec(), vec![row.to_vec()])
    }
}

/// A number that a test left in the environment.
fn count_of(variable: &str) -> u64 {
    let text = std::env::var(variable).unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// A constellation of idle daemons.
struct Fixture {
    rundir: RunDir,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    ready: Receiver<Result<Status, String>>,
}

impl Fixture {
    fn start(name: &str, more: &str) -> Self {
        let text = format!(
            "[[device]]\nname = \"lo0\"\nkind = \"loopback\"\naddresses = [\"127.0.0.1/8\"]\n\
             [cpu]\npin = \"off\"\n{more}\n"
        );
        let (config, _) = Config::parse(Path::new("t"), &text).unwrap_or_else(|e| panic!("{e}"));
        let rundir = RunDir::of(name).unwrap();
        let options = Options {
            replace: false,
            rundir: rundir.clone(),
            config,
            executable: std::env::current_exe().unwrap(),
        };
        let (tell, ready) = channel();
        let thread = spawn(move || {
            supervisor::run(options, &mut |result| {
                let result = result.cloned().map_err(str::to_owned);
                tell.send(result).unwrap();
            })
        });
        Self {
            rundir,
            thread: Some(thread),
            ready,
        }
    }

    fn up(name: &str, more: &str) -> Self {
        let this = Self::start(name, more);
        let status = this.ready.recv_timeout(Duration::from_secs(20)).unwrap();
        status.unwrap();
        this
    }

    fn call(&self, request: &Request) -> Answer {
        call(&self.rundir, request).unwrap_or_else(|error| panic!("{error}"))
    }

    fn status(&self) -> Status {
        match self.call(&Request::Status) {
            Answer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    fn daemon(&self, name: &str) -> DaemonStatus {
        let daemons = self.status().daemons;
        daemons.into_iter().find(|d| d.name == name).unwrap()
    }

    fn pid(&self, name: &str) -> Pid {
        Pid::from_raw(self.daemon(name).pid.unwrap().try_into().unwrap())
    }

    /// Waits until `name` is what `wanted` says.
    fn wait(&self, name: &str, wanted: impl Fn(&DaemonStatus) -> bool) -> DaemonStatus {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let daemon = self.daemon(name);
            if wanted(&daemon) {
                return daemon;
            }
            assert!(Instant::now() < deadline, "still {daemon:?}");
            sleep(Duration::from_millis(10));
        }
    }

    fn summary(&self, layer: &str) -> Vec<String> {
        let request = Request::Query {
            layer: layer.to_owned(),
            what: Query::Summary,
        };
        match self.call(&request) {
            Answer::Table { mut rows, .. } => rows.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn down(mut self) {
        self.call(&Request::Down);
        let thread = self.thread.take().unwrap();
        thread.join().unwrap().unwrap();
        assert!(!self.rundir.path().exists());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = call(&self.rundir, &Request::Down);
            let _ = thread.join();
        }
    }
}

fn everything_starts_and_stops_and_leaves_nothing() {
    let f = Fixture::up("plain", "");
    let status = f.status();
    let names: Vec<_> = status.daemons.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["netdevd@lo0", "ipd", "tcpd", "udpd"]);
    let pids: Vec<_> = status.daemons.iter().map(|d| d.pid.unwrap()).collect();
    for daemon in &status.daemons {
        assert_eq!(daemon.state, DaemonState::Running);
        assert_eq!(daemon.stored, 1, "{daemon:?}");
        assert_eq!(daemon.pool_used, 0);
        assert!(daemon.counters.iter().any(|(name, _)| name == "idle_polls"));
    }
    f.down();
    for pid in pids {
        assert!(kill(Pid::from_raw(pid.try_into().unwrap()), None).is_err());
    }
}

fn a_killed_daemon_is_back_with_what_it_stored() {
    let f = Fixture::up("killed", "");
    assert_eq!(f.summary("tcpd"), ["0", "0", "0"]);
    for round in 1..=3 {
        let before = f.pid("tcpd");
        kill(before, Signal::SIGKILL).unwrap();
        let daemon = f.wait("tcpd", |d| {
            d.state == DaemonState::Running && d.restarts == round
        });
        assert_ne!(f.pid("tcpd"), before);
        assert_eq!(daemon.last_death.as_deref(), Some("SIGKILL"));
        assert_eq!(daemon.stored, 1);
        assert_eq!(f.summary("tcpd"), ["1", &round.to_string(), "0"]);
    }
    for other in ["ipd", "udpd", "netdevd@lo0"] {
        assert_eq!(f.daemon(other).restarts, 0);
    }
    f.down();
}

fn a_dead_daemon_is_succeeded_by_its_spare() {
    let f = Fixture::up("spare", "");
    let number = |pid: Option<u32>| Pid::from_raw(pid.unwrap().try_into().unwrap());
    let spare = f.wait("tcpd", |d| d.spare.is_some()).spare;
    kill(f.pid("tcpd"), Signal::SIGKILL).unwrap();
    let running = |restarts| {
        move |d: &DaemonStatus| d.state == DaemonState::Running && d.restarts == restarts
    };
    assert_eq!(f.wait("tcpd", running(1)).pid, spare);
    assert_eq!(f.summary("tcpd"), ["1", "1", "0"]);
    // The next one is somebody else, and of no use if it is stopped.
    let stopped = f.wait("tcpd", |d| d.spare.is_some()).spare;
    assert_ne!(stopped, spare);
    kill(number(stopped), Signal::SIGSTOP).unwrap();
    sleep(Duration::from_millis(20));
    kill(f.pid("tcpd"), Signal::SIGKILL).unwrap();
    assert_ne!(f.wait("tcpd", running(2)).pid, stopped);
    let all: Vec<_> = f.status().daemons.iter().filter_map(|d| d.spare).collect();
    f.down();
    for pid in all.into_iter().map(Some).chain([spare, stopped]) {
        assert!(kill(number(pid), None).is_err(), "{pid:?} lives");
    }
}

fn a_spare_that_dies_is_replaced_in_time() {
    let f = Fixture::up("spares", "[restart]\nbackoff-max = \"100ms\"");
    let spare = f.wait("ipd", |d| d.spare.is_some()).spare;
    let pid = Pid::from_raw(spare.unwrap().try_into().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    f.wait("ipd", |d| d.spare.is_some() && d.spare != spare);
    assert!(f.status().daemons.iter().all(|d| d.restarts == 0));
    f.down();
    let f = Fixture::up("none", "[restart]\nspare = false");
    sleep(Duration::from_millis(100));
    assert!(f.status().daemons.iter().all(|d| d.spare.is_none()));
    f.down();
}

fn the_processes_have_the_priority_asked_for() {
    // A lower one than others': everybody may ask for that.
    let f = Fixture::up("nice", "nice = 5");
    let spare = f.wait("tcpd", |d| d.spare.is_some()).spare.unwrap();
    let nice_of = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // proc_pid_stat(5): the 19th field; the second, the name, ends at the last parenthesis.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().to_owned()
    };
    for pid in [f.pid("tcpd").as_raw(), spare.try_into().unwrap()] {
        assert_eq!(nice_of(pid), "5");
    }
    f.down();
}

fn a_netdevd_learns_the_regions_again() {
    let f = Fixture::up("regions", "");
    f.call(&Request::Restart {
        layer: "lo0".to_owned(),
    });
    let deadline = Instant::now() + Duration::from_secs(5);
    while f.summary("netdevd") != ["1", "1", "1"] {
        assert!(Instant::now() < deadline, "{:?}", f.summary("netdevd"));
        sleep(Duration::from_millis(10));
    }
    f.down();
}

fn a_hung_daemon_is_killed_and_restarted() {
    let f = Fixture::up("hung", "[restart]\nhang = \"200ms\"");
    // Idle is not hung: the heartbeat wakes them all.
    sleep(Duration::from_millis(600));
    assert!(f.status().daemons.iter().all(|d| d.restarts == 0));
    kill(f.pid("ipd"), Signal::SIGSTOP).unwrap();
    let daemon = f.wait("ipd", |d| {
        d.restarts == 1 && d.state == DaemonState::Running
    });
    assert!(daemon.last_death.unwrap().starts_with("hung"));
    f.down();
}

fn a_planned_restart_drains_and_counts_as_no_death() {
    let f = Fixture::up("planned", "");
    let before = f.pid("udpd");
    let Answer::Done(said) = f.call(&Request::Restart {
        layer: "udpd".to_owned(),
    }) else {
        panic!()
    };
    assert!(said.starts_with("udpd: process "), "{said}");
    assert_ne!(f.pid("udpd"), before);
    let daemon = f.daemon("udpd");
    assert_eq!((daemon.restarts, daemon.last_death), (1, None));
    // All at once, then a name that is none.
    f.call(&Request::Restart {
        layer: "all".to_owned(),
    });
    assert!(f.status().daemons.iter().all(|d| d.restarts >= 1));
    let unknown = call(
        &f.rundir,
        &Request::Restart {
            layer: "sctpd".to_owned(),
        },
    );
    let Err(CallError::Refused(why)) = unknown else {
        panic!("{unknown:?}")
    };
    assert!(why.contains("netdevd@lo0, ipd, tcpd, udpd, all"), "{why}");
    f.down();
}

fn a_daemon_that_cannot_start_fails_the_start() {
    with_variable("IDLE_FAILS", "udpd", || {
        let mut f = Fixture::start("failing", "");
        let result = f.ready.recv_timeout(Duration::from_secs(20)).unwrap();
        let why = result.unwrap_err();
        assert!(
            why.starts_with("udpd does not start: exit status 1"),
            "{why}"
        );
        let end = f.thread.take().unwrap().join().unwrap();
        assert_eq!(end.unwrap_err().to_string(), why);
        assert!(!f.rundir.admin_socket().exists());
        f.rundir.remove();
    });
}

fn thousands_of_descriptors_come_back() {
    with_variable("IDLE_STORES", "3000", || {
        let f = Fixture::up("many", "");
        assert_eq!(f.daemon("tcpd").stored, 3001);
        kill(f.pid("tcpd"), Signal::SIGKILL).unwrap();
        f.wait("tcpd", |d| {
            d.state == DaemonState::Running && d.restarts == 1
        });
        assert_eq!(f.summary("tcpd"), ["3001", "1", "0"]);
        f.down();
    });
}

fn a_name_is_taken_only_while_it_is_in_use() {
    let f = Fixture::up("taken", "");
    let mut second = Fixture::start("taken", "");
    let error = second.thread.take().unwrap().join().unwrap().unwrap_err();
    assert!(
        error.to_string().contains("`strata down --name taken`"),
        "{error}"
    );
    assert!(f.status().daemons.iter().all(|d| d.restarts == 0));
    f.down();
    Fixture::up("taken", "").down();
}

fn repeated_deaths_are_slowed_down_and_given_up() {
    let policy = "[restart]\nat-once = 1\nbackoff = \"1ms\"\ngive-up = 3\nstable = \"1h\"";
    let f = Fixture::up("loop", policy);
    for _ in 0..4 {
        let daemon = f.wait("udpd", |d| d.state == DaemonState::Running);
        let pid = i32::try_from(daemon.pid.unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        f.wait("udpd", |d| d.pid != daemon.pid);
    }
    let failed = f.wait("udpd", |d| d.state == DaemonState::Failed);
    assert_eq!((failed.streak, failed.starts_in_ms), (4, None));
    assert!(
        f.status()
            .daemons
            .iter()
            .filter(|d| d.name != "udpd")
            .all(|d| d.restarts == 0)
    );
    // A person may try again.
    f.call(&Request::Restart {
        layer: "udpd".to_owned(),
    });
    assert_eq!(f.daemon("udpd").state, DaemonState::Running);
    f.down();
}

fn a_stranger_at_the_admin_socket_harms_nobody() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
    };
    use std::os::fd::AsRawFd;
    let f = Fixture::up("noise", "");
    let address = UnixAddr::new(&f.rundir.admin_socket()).unwrap();
    for noise in [&[0xffu8; 1000][..], &[0], &[7; 70_000]] {
        let flags = SockFlag::SOCK_CLOEXEC;
        let s = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(s.as_raw_fd(), &address).unwrap();
        send(s.as_raw_fd(), noise, MsgFlags::MSG_NOSIGNAL).unwrap();
    }
    assert_eq!(f.status().daemons.len(), 4);
    f.down();
}

/// Runs the present test in another process with a variable set, since changing one's own
/// environment is not safe.
fn with_variable(key: &str, value: &str, body: impl FnOnce()) {
    if std::env::var(key).is_ok_and(|now| now == value) {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new(this)
        .arg(RUNNING.get())
        .env(key, value)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

thread_local! {
    /// The name of the test that runs.
    static RUNNING: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name as fn())),*] };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [worker, _, control] = arguments.as_slice()
        && worker == "__worker"
    {
        let boot = Boot::from_args(control);
        let result = boot.and_then(|boot| boot.map_or(Ok(()), runtime::run::<Idle>));
        return ExitCode::from(u8::from(result.is_err()));
    }
    if arguments.first().is_some_and(|first| first == "__keeper") {
        return strata::main();
    }
    let base = tempfile::tempdir().unwrap();
    if std::env::var_os("STRATA_RUN_DIR").is_none() {
        // The run directory is the process's, so it is set by being started again.
        let this = std::env::current_exe().unwrap();
        let status = std::process::Command::new(this)
            .args(&arguments)
            .env("STRATA_RUN_DIR", base.path().join("strata"))
            .env("STRATA_LOG", "error")
            .status()
            .unwrap();
        return ExitCode::from(u8::from(!status.success()));
    }
    let all = tests![
        everything_starts_and_stops_and_leaves_nothing,
        a_killed_daemon_is_back_with_what_it_stored,
        a_dead_daemon_is_succeeded_by_its_spare,
        a_spare_that_dies_is_replaced_in_time,
        the_processes_have_the_priority_asked_for,
        a_netdevd_learns_the_regions_again,
        a_hung_daemon_is_killed_and_restarted,
        a_planned_restart_drains_and_counts_as_no_death,
        a_daemon_that_cannot_start_fails_the_start,
        thousands_of_descriptors_come_back,
        a_name_is_taken_only_while_it_is_in_use,
        repeated_deaths_are_slowed_down_and_given_up,
        a_stranger_at_the_admin_socket_harms_nobody,
    ];
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    let mut failed = 0;
    for (name, test) in all {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        RUNNING.set(name);
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        failed += u32::from(!ok);
    }
    ExitCode::from(u8::from(failed > 0))
}
