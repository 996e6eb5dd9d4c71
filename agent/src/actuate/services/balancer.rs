//! Desired state, mirror and maps of Services, and what is yet to be done: each changed Service is planned and written.
//!
//! Must not know: watches, who is told. What is to be told is kept until it is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pagurus_agent_core::addr::{Backend, BackendId, Protocol};
use pagurus_agent_core::services::plan::{Full, MapOp, ServiceNumber, Table};
use pagurus_agent_core::services::{Desired, ServiceName};
use pagurus_agent_datapath::names::Names;
use pagurus_agent_datapath::{Failed, ServiceMaps};
use serde_json::json;
use tokio::time::Instant;

use super::health::{Check, Checks};
use super::metrics::ServiceMetrics;
use pagurus_agent_core::hash::HashSet;

/// So many Services are written at once when the agent starts.
const TOGETHER: usize = 1024;
/// A Service that could not be written is tried again after this time, or as soon as there is room again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a Service is not in the maps as it should be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Map(#[from] Failed),
}

/// Desired state, mirror and maps, and what is yet to be done.
pub(super) struct Balancer<M> {
    pub(super) desired: Desired,
    pub(super) table: Table,
    pub(super) maps: M,
    pub(super) failed: BTreeMap<ServiceName, String>,
    pub(super) retry_at: Option<Instant>,
    /// Where the clock of the table began.
    pub(super) started: Instant,
    metrics: ServiceMetrics,
    /// Services that answer load balancers' health checks, by port.
    checks: Checks,
    /// Names of Services by number, for those who read the maps without us.
    names: Option<Names>,
    /// The same for us. Who had a number stays here until it is given to another.
    owners: Vec<Option<ServiceName>>,
    /// What is to be told.
    outcome: Outcome,
}

/// Whose a number is, and the backends there are.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The Service.
    pub(super) name: ServiceName,
    /// Its backends.
    pub(super) members: Vec<(BackendId, Backend)>,
}

/// What passes have come to, for others to act on.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Services that were looked at: what they claim and another has, and why they could not be written.
    pub(super) problems: BTreeMap<ServiceName, Problems>,
    /// Backends that take no datagrams any more, and whose.
    pub(super) ended: BTreeSet<(ServiceNumber, SocketAddr)>,
}

/// What is wrong with a Service; nothing, if all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems {
    /// Its uid.
    pub(super) uid: std::sync::Arc<str>,
    /// Addresses that another Service has.
    pub(super) contested: Vec<String>,
    /// Why it is not in the maps as it should be.
    pub(super) unwritten: Option<String>,
}

impl Problems {
    /// Whether all is well.
    pub(super) fn is_none(&self) -> bool {
        self.contested.is_empty() && self.unwritten.is_none()
    }
}

impl<M: ServiceMaps> Balancer<M> {
    pub(super) fn new(maps: M, table: Table, names: Option<Names>, metrics: ServiceMetrics) -> Self {
        Self {
            desired: Desired::default(),
            table,
            maps,
            failed: BTreeMap::new(),
            retry_at: None,
            started: Instant::now(),
            metrics,
            checks: Checks::new(),
            names,
            owners: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// The first pass: every Service is planned against what is in the maps, then what is left over goes.
    pub(super) fn write_all(&mut self) {
        self.desired.take_dirty();
        let names: Vec<ServiceName> = self.desired.service_names().collect();
        for names in names.chunks(TOGETHER) {
            self.write_together(names);
        }
        let ops = self.table.sweep();
        self.carry_out_logged(&ops, "remove what no Service owns");
        // There may be room now.
        self.retry_failed();
        for name in self.desired.take_dirty() {
            self.write(&name);
        }
        self.write_nodes();
        self.metrics.observe_table(&self.table, self.failed.len());
        self.forget_names();
    }

    /// Removes the names of numbers that nobody has.
    fn forget_names(&mut self) {
        let Some(names) = &mut self.names else { return };
        let used: HashSet<u32> = self.table.numbers().map(|(number, _)| number.0).collect();
        if let Err(error) = names.retain(|number| used.contains(&number)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "old names of Services are not removed");
        }
    }

    /// Writes many Services at once; each for itself if that does not succeed.
    fn write_together(&mut self, names: &[ServiceName]) {
        let mut ops = Vec::new();
        let mut full = Vec::new();
        for name in names {
            let compiled = self.desired.compile(name);
            match self.table.plan(name, &compiled, self.desired.claims()) {
                Ok(more) => ops.extend(more),
                Err(_) => full.push(name),
            }
        }
        if self.carry_out(&ops).is_err() {
            full = names.iter().collect();
        }
        for name in full {
            self.write(name);
        }
        for name in names {
            self.note(name);
        }
    }

    /// Writes every Service that changed; `arrived` is when the first of the changes came.
    pub(super) fn write_dirty(&mut self, arrived: Instant) {
        let dirty = self.desired.take_dirty();
        for name in &dirty {
            self.write(name);
            self.metrics.event_to_maps.observe(arrived.elapsed().as_secs_f64());
        }
        self.write_nodes();
        if !dirty.is_empty() {
            self.metrics.observe_table(&self.table, self.failed.len());
        }
    }

    /// Writes one Service.
    fn write(&mut self, name: &ServiceName) {
        self.try_write(name);
        self.note(name);
    }

    fn try_write(&mut self, name: &ServiceName) {
        let compiled = self.desired.compile(name);
        let planned = self.table.plan(name, &compiled, self.desired.claims()).map_err(Failure::from);
        let written = planned.and_then(|ops| {
            self.carry_out(&ops)?;
            self.note_ended(name, &ops);
            Ok(())
        });
        match written {
            Ok(()) => {
                if self.failed.remove(name).is_some() {
                    tracing::info!(service = %name, "written after all");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.failed.get(name) != Some(&text) {
                    tracing::error!(service = %name, error = &error as &dyn std::error::Error, "not written; trying again");
                }
                self.metrics.failures.inc();
                self.failed.insert(name.clone(), text);
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn write_nodes(&mut self) {
        let ops = self.table.plan_nodes(self.desired.addresses());
        self.carry_out_logged(&ops, "write the addresses of nodes");
    }

    fn carry_out_logged(&mut self, ops: &[MapOp], what: &str) {
        if let Err(error) = self.carry_out(ops) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "{what}; trying again at the next change"
            );
            self.metrics.failures.inc();
        }
    }

    /// Carries out operations in order; the mirror follows each, so that it is true also after a failure.
    fn carry_out(&mut self, ops: &[MapOp]) -> Result<(), Failed> {
        let result = self.maps.apply(ops);
        let done = result.as_ref().map_or_else(|failed| failed.done, |()| ops.len());
        let now = self.now();
        self.table.commit(ops, done, now);
        self.metrics.operations.inc_by(u64::try_from(done).unwrap_or(u64::MAX));
        result
    }

    /// The table's clock: milliseconds since this began.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Empties what no program can lead to any more; there may be room then for what did not fit.
    fn release(&mut self) {
        let ops = self.table.release(self.now());
        if !ops.is_empty() {
            self.carry_out_logged(&ops, "empty what is no longer used");
            self.retry_failed();
        }
    }

    /// When to look again: something is to be tried once more, or may be emptied.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let release = self.table.release_at().map(|at| self.started + Duration::from_millis(at));
        let retry = self.retry_at.filter(|_| !self.failed.is_empty());
        [release, retry].into_iter().flatten().min()
    }

    /// What is due without a change.
    pub(super) fn wake(&mut self) {
        self.release();
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_failed();
        }
    }

    fn retry_failed(&mut self) {
        self.retry_at = None;
        for name in self.failed.keys() {
            self.desired.mark_dirty(name.clone());
        }
    }

    /// What the passes since the last call have come to.
    pub(super) fn take_outcome(&mut self) -> Outcome {
        std::mem::take(&mut self.outcome)
    }

    /// The health checks of Services on this node.
    pub(super) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Notes what is to be told of a Service that was just written, or could not be.
    fn note(&mut self, name: &ServiceName) {
        let service = self.desired.service(name);
        let uid = service.map(|service| service.created.uid.clone()).unwrap_or_default();
        let check = service.and_then(|service| service.health_check_node_port).map(|port| {
            (
                port,
                Check { service: name.clone(), uid: uid.clone(), endpoints: self.desired.local_ready(name) },
            )
        });
        self.note_owner(name);
        self.checks.retain(|_, other| other.service != *name);
        self.checks.extend(check);
        let lost = self.desired.claims().lost(name).into_iter();
        let problems = Problems {
            uid,
            contested: lost.map(|(frontend, holder)| format!("{frontend} is served for {holder}")).collect(),
            unwritten: self.failed.get(name).cloned(),
        };
        self.outcome.problems.insert(name.clone(), problems);
    }

    /// Notes whose number it is.
    fn note_owner(&mut self, name: &ServiceName) {
        let Some(number) = self.table.number(name).filter(|number| number.0 != 0) else { return };
        let place = number.0 as usize;
        if self.owners.get(place).is_some_and(|owner| owner.as_ref() == Some(name)) {
            return;
        }
        if self.owners.len() <= place {
            self.owners.resize(place + 1, None);
        }
        self.owners[place] = Some(name.clone());
        if let Some(names) = &mut self.names
            && let Err(error) = names.set(number.0, &name.to_string())
        {
            tracing::warn!(service = %name, error = &error as &dyn std::error::Error, "its name is not written");
        }
    }

    /// Whose these numbers are. Takes little time for each: changes wait for it.
    pub(super) fn owners(&self, numbers: &[ServiceNumber]) -> Vec<Option<Owner>> {
        let of = |number: &ServiceNumber| {
            let name = self.owners.get(number.0 as usize)?.clone()?;
            Some(Owner { members: self.table.members(&name).collect(), name })
        };
        numbers.iter().map(of).collect()
    }

    /// Notes the backends that take no datagrams any more.
    fn note_ended(&mut self, name: &ServiceName, ops: &[MapOp]) {
        let Some(number) = self.table.number(name) else { return };
        for op in ops {
            if let MapOp::PutBackend(_, held) = op
                && held.draining
                && held.backend.protocol == Protocol::Udp
            {
                self.outcome.ended.insert((number, SocketAddr::new(held.backend.ip, held.backend.port)));
            }
        }
    }

    /// For `/debug/state`.
    pub(super) fn explain(&self) -> serde_json::Value {
        let used = self.table.used();
        let contested: Vec<String> = self
            .desired
            .claims()
            .contested()
            .map(|(frontend, owner, others)| {
                let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                format!("{frontend}: served for {owner}, also claimed by {}", others.join(", "))
            })
            .collect();
        json!({
            "desired": { "services": self.desired.service_count(), "slices": self.desired.slice_names().len() },
            "observed": { "frontends": used.services, "slots": used.slots, "backends": used.backends },
            "pending": self.failed.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>(),
            "contested": contested,
        })
    }
}
