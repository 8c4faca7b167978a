//! Answers to the supervisor's questions.

use super::Udpd;
use crate::engine::Kind;
use abi::control::Query;

impl Udpd {
    pub(super) fn report(&self, what: Query) -> (Vec<String>, Vec<Vec<String>>) {
        let columns = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        match what {
            Query::Sockets => {
                let rows = self.engine.iter().map(|(_, s)| {
                    let peer = if s.is_connected() {
                        s.shown_endpoint(&s.record.peer).to_string()
                    } else {
                        "*".to_owned()
                    };
                    let kind = match s.kind {
                        Kind::Udp => "udp".to_owned(),
                        Kind::Ping => "ping".to_owned(),
                        Kind::Raw(protocol) => format!("raw:{protocol}"),
                    };
                    vec![
                        kind,
                        if s.is_connected() { "ESTAB" } else { "UNCONN" }.to_owned(),
                        s.rx.used().to_string(),
                        s.tx.used().to_string(),
                        s.shown_endpoint(&s.record.local).to_string(),
                        peer,
                        s.drops.to_string(),
                    ]
                });
                let names = [
                    "netid", "state", "recv-q", "send-q", "local", "peer", "drops",
                ];
                (columns(&names), rows.collect())
            }
            Query::Summary => {
                let (sessions, sockets) = self.sessions.population();
                let row = |k: &str, v: usize| vec![k.to_owned(), v.to_string()];
                (
                    columns(&["key", "value"]),
                    vec![row("sessions", sessions), row("sockets", sockets)],
                )
            }
            Query::Neighbours | Query::Routes => Default::default(),
        }
    }
}
