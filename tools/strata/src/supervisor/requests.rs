//! What is asked over the admin socket, and the answers that have to wait.

use super::daemon::{Planned, State};
use super::{Mode, Source, Supervisor};
use crate::admin::server::{Client, Input};
use crate::admin::{Reply, Request};
use abi::config::Impairment;
use abi::control::{Query, ToDaemon};
use abi::{Nanos, ServiceId};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use runtime::clock;
use shm::vitals::stage;

/// Connections at a time.
const MAX_CLIENTS: usize = 64;

/// How long a daemon may take to answer a query, and to come back after a restart.
const QUERY: Nanos = 2_000_000_000;
const COMEBACK: Nanos = 15_000_000_000;

/// An answer that waits for something.
#[derive(Debug)]
pub(super) struct Pending {
    client: u32,
    until: Nanos,
    waits: Waits,
}

/// For what.
#[derive(Debug)]
enum Waits {
    /// For a daemon's report.
    Report(u64),
    /// For these services to run in another incarnation than the one named.
    Restart(Vec<(ServiceId, u32)>),
    /// For everything to be down.
    Down,
}

impl Pending {
    pub(super) fn deadline(&self) -> Nanos {
        self.until
    }
}

impl Supervisor {
    pub(super) fn on_connection(&mut self) {
        let Some(client) = Client::accept(&self.listener) else {
            return;
        };
        if self.clients.len() >= MAX_CLIENTS {
            return;
        }
        let number = self.next_client;
        self.next_client = number.wrapping_add(1);
        if self.watch(&client, Source::Client(number)).is_ok() {
            self.clients.insert(number, client);
        }
    }

    pub(super) fn on_client(&mut self, number: u32, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.send(number);
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        match self.clients.get(&number).map(Client::receive) {
            Some(Input::Request(request)) => match self.on_request(number, request) {
                Some(reply) => self.reply(number, reply),
                None => self.answer_pending(clock::now()),
            },
            Some(Input::Empty) | None => {}
            Some(Input::End) => self.hang_up(number),
        }
    }

    fn hang_up(&mut self, number: u32) {
        if let Some(client) = self.clients.remove(&number) {
            let _ = self.epoll.delete(&client);
        }
        self.pending.retain(|pending| pending.client != number);
    }

    fn reply(&mut self, number: u32, reply: Reply) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.reply(reply);
        }
        self.send(number);
    }

    fn send(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let flags = match client.flush() {
            Ok(true) => EpollFlags::EPOLLIN,
            Ok(false) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Err(_) => return self.hang_up(number),
        };
        let mut event = EpollEvent::new(flags, Source::Client(number).token());
        let _ = self.epoll.modify(&*client, &mut event);
    }

    /// The answer, or none if it has to wait.
    fn on_request(&mut self, client: u32, request: Request) -> Option<Reply> {
        let now = clock::now();
        match request {
            Request::Status => Some(Reply::Status(Box::new(self.status(now)))),
            Request::Down => {
                self.stop(None);
                self.wait(client, now.saturating_add(COMEBACK), Waits::Down);
                None
            }
            Request::Restart { layer } => self.on_restart(client, &layer, now),
            Request::Upgrade { layer, executable } => {
                self.on_upgrade(client, &layer, &executable, now)
            }
            Request::Layouts { layer } => Some(self.layouts(&layer)),
            Request::Query { layer, what } => self.on_query(client, &layer, what, now),
            Request::Counters => Some(self.counters()),
            Request::Impair { device, impairment } => Some(self.impair(&device, impairment)),
            Request::Trace { packets } => {
                for daemon in self.daemons.values() {
                    daemon.gauges.vitals.request_trace(packets);
                }
                Some(Reply::Done(format!(
                    "tracing {packets} stages in each layer"
                )))
            }
            Request::Traces => Some(self.traces()),
        }
    }

    fn wait(&mut self, client: u32, until: Nanos, waits: Waits) {
        self.pending.push(Pending {
            client,
            until,
            waits,
        });
    }

    /// The services that `layer` names: `tcpd`, `netdevd` (all of them), `netdevd@tap0`, `tap0`,
    /// `all`.
    pub(super) fn matching(&self, layer: &str) -> Result<Vec<ServiceId>, Reply> {
        let services = &self.topology.services;
        let ids: Vec<_> = services
            .iter()
            .filter(|service| {
                let (role, device) = service.name.split_once('@').unwrap_or((&service.name, ""));
                layer == "all" || layer == service.name || layer == role || layer == device
            })
            .map(|service| service.id)
            .collect();
        if ids.is_empty() {
            let names: Vec<_> = services.iter().map(|s| s.name.as_str()).collect();
            return Err(Reply::Failed(format!(
                "no layer is called `{layer}`; there is: {}, all",
                names.join(", ")
            )));
        }
        Ok(ids)
    }

    fn on_restart(&mut self, client: u32, layer: &str, now: Nanos) -> Option<Reply> {
        let ids = match self.matching(layer) {
            Ok(ids) => ids,
            Err(reply) => return Some(reply),
        };
        self.restart(client, ids, now)
    }

    /// Restarts `ids`; the answer comes when they run again.
    pub(super) fn restart(
        &mut self,
        client: u32,
        ids: Vec<ServiceId>,
        now: Nanos,
    ) -> Option<Reply> {
        if matches!(self.mode, Mode::Stopping(_)) {
            return Some(Reply::Failed(
                "the constellation is being stopped".to_owned(),
            ));
        }
        let mut from = Vec::new();
        for id in ids {
            if let Some(daemon) = self.daemons.get(&id) {
                from.push((id, daemon.incarnations));
            }
            self.finish(id, Planned::Restart);
        }
        self.wait(client, now.saturating_add(COMEBACK), Waits::Restart(from));
        None
    }

    fn on_query(&mut self, client: u32, layer: &str, what: Query, now: Nanos) -> Option<Reply> {
        let id = match self.matching(layer).map(|ids| ids.into_iter().next()) {
            Ok(id) => id?,
            Err(reply) => return Some(reply),
        };
        let number = self.next_query;
        self.next_query += 1;
        let daemon = self.daemons.get(&id)?;
        let asked = daemon.is_running()
            && daemon
                .worker()
                .is_some_and(|worker| worker.control.send(ToDaemon::Query { id: number, what }));
        if !asked {
            let name = &daemon.service.name;
            return Some(Reply::Failed(format!(
                "{name} is not running at the moment"
            )));
        }
        self.wait(client, now.saturating_add(QUERY), Waits::Report(number));
        None
    }

    /// A daemon's answer to query `id`.
    pub(super) fn on_report(&mut self, id: u64, columns: Vec<String>, rows: Vec<Vec<String>>) {
        let asked = |pending: &Pending| matches!(pending.waits, Waits::Report(n) if n == id);
        if let Some(at) = self.pending.iter().position(asked) {
            let pending = self.pending.swap_remove(at);
            let more = false;
            self.reply(
                pending.client,
                Reply::Table {
                    columns,
                    rows,
                    more,
                },
            );
        }
    }

    /// Answers what has happened or will not happen any more.
    pub(super) fn answer_pending(&mut self, now: Nanos) {
        let mut answers = Vec::new();
        let mut pending = core::mem::take(&mut self.pending);
        pending.retain(|waiting| match self.answer(waiting, now) {
            Some(reply) => {
                answers.push((waiting.client, reply));
                false
            }
            None => true,
        });
        self.pending.extend(pending);
        for (client, reply) in answers {
            self.reply(client, reply);
        }
    }

    fn answer(&self, waiting: &Pending, now: Nanos) -> Option<Reply> {
        let late = waiting.until <= now;
        match &waiting.waits {
            Waits::Report(_) => late.then(|| Reply::Failed("the daemon did not answer".to_owned())),
            Waits::Down => {
                let down = self.daemons.values().all(|d| d.worker().is_none());
                down.then(|| Reply::Done("down".to_owned()))
                    .or_else(|| late.then(|| Reply::Failed("some daemons live on".to_owned())))
            }
            Waits::Restart(from) => {
                let mut told = Vec::new();
                for (id, before) in from {
                    let daemon = self.daemons.get(id)?;
                    let name = &daemon.service.name;
                    let fresh = daemon.incarnations != *before;
                    if let Some(why) = daemon.trial.as_ref().and_then(|t| t.refused.as_ref()) {
                        if daemon.is_running() || late {
                            let text = format!("{name}: {why}; the build before runs again");
                            return Some(Reply::Failed(text));
                        }
                        return None;
                    }
                    match &daemon.state {
                        State::Alive(worker) if fresh && daemon.is_running() => {
                            let took = worker.ready?.saturating_sub(worker.started) / 1_000_000;
                            let pid = worker.child.pid();
                            told.push(format!("{name}: process {pid}, ready after {took} ms"));
                        }
                        State::Failed => {
                            let why = daemon.last_death.as_deref().unwrap_or("unknown");
                            return Some(Reply::Failed(format!("{name} does not start: {why}")));
                        }
                        _ if late => {
                            return Some(Reply::Failed(format!("{name} is not back yet")));
                        }
                        _ => return None,
                    }
                }
                Some(Reply::Done(told.join("\n")))
            }
        }
    }

    /// Sends what can still be sent when everything is over.
    pub(super) fn say_goodbye(&mut self) {
        for client in self.clients.values_mut() {
            let _ = client.flush();
        }
    }

    fn counters(&self) -> Reply {
        let mut rows = Vec::new();
        for service in &self.topology.services {
            let Some(daemon) = self.daemons.get(&service.id) else {
                continue;
            };
            for (name, value) in daemon.gauges.vitals.counters() {
                rows.push(vec![service.name.clone(), name, value.to_string()]);
            }
        }
        table(&["layer", "counter", "value"], rows)
    }

    fn traces(&self) -> Reply {
        let mut entries = Vec::new();
        for service in &self.topology.services {
            if let Some(daemon) = self.daemons.get(&service.id) {
                let traced = daemon.gauges.vitals.traces();
                entries.extend(traced.into_iter().map(|entry| (entry, service)));
            }
        }
        entries.sort_by_key(|(entry, _)| entry.at);
        let rows = entries
            .into_iter()
            .map(|(entry, service)| {
                vec![
                    entry.at.to_string(),
                    service.name.clone(),
                    stage_name(entry.stage).to_owned(),
                    format!("{:#x}", entry.handle),
                    entry.len.to_string(),
                    entry.detail.to_string(),
                ]
            })
            .collect();
        table(
            &["at_ns", "layer", "stage", "handle", "len", "detail"],
            rows,
        )
    }

    fn impair(&mut self, name: &str, impairment: Impairment) -> Reply {
        let devices = &mut self.topology.stack.devices;
        let names: Vec<_> = devices.iter().map(|d| d.name.clone()).collect();
        let Some(device) = devices.iter_mut().find(|device| device.name == name) else {
            let there = names.join(", ");
            return Reply::Failed(format!("no device is called `{name}`; there is: {there}"));
        };
        device.impairment = impairment;
        let id = device.service;
        let Some(daemon) = self.daemons.get(&id) else {
            return Reply::Failed("no daemon drives it".to_owned());
        };
        let incarnation = daemon.incarnations.wrapping_sub(1);
        let config = self.config_of(daemon, incarnation);
        // A daemon that is down gets the new configuration when it starts.
        if let Some(worker) = daemon.worker()
            && !worker.control.send(ToDaemon::Configure(Box::new(config)))
        {
            return Reply::Failed(format!("{} does not take messages", daemon.service.name));
        }
        Reply::Done(if impairment.is_off() {
            format!("{name}: no impairment")
        } else {
            format!("{name}: impaired")
        })
    }
}

pub(super) fn table(columns: &[&str], rows: Vec<Vec<String>>) -> Reply {
    Reply::Table {
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        rows,
        more: false,
    }
}

fn stage_name(number: u32) -> &'static str {
    match number {
        stage::DEVICE_IN => "device-in",
        stage::IP_IN => "ip-in",
        stage::TRANSPORT_IN => "transport-in",
        stage::TRANSPORT_OUT => "transport-out",
        stage::IP_OUT => "ip-out",
        stage::DEVICE_OUT => "device-out",
        _ => "unknown",
    }
}
