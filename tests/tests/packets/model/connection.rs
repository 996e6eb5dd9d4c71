//! A connection, packet by packet: its first one, later ones, its answers, errors about it, its end.
//!
//! Must not know: how the maps are filled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use pagurus_agent_core::addr::{Backend, Protocol};
use pagurus_agent_core::services::ServiceName;
use pagurus_agent_core::services::kube_proxy::{Cluster, Holder, Verdict, is_direct};
use pagurus_agent_datapath::reading::Reader;
use pagurus_ebpf_abi::programs;
use pagurus_tests::packet::{Packet, joined};

use super::attempt::{self, Attempt, Client};
use super::node::Node;
use super::{outcome, said, sockets};
use crate::packets::random::{NODE, Random};
use crate::packets::uplink::{GATEWAY, OWN};

/// How often what was seen, so that a run that sees nothing is no success.
#[derive(Debug, Default)]
pub(super) struct Seen {
    connections: usize,
    elsewhere: usize,
    kept: usize,
    replaced: usize,
    hairpins: usize,
    handed_on: usize,
    masqueraded: usize,
    refused: usize,
    dropped: usize,
    stayed: usize,
    early: usize,
    errors: usize,
    begun_again: usize,
    sockets: usize,
    fragmented: usize,
    astray: usize,
}

impl Seen {
    /// Whether everything was there at least once.
    pub(super) fn is_everything(&self) -> bool {
        let Self { connections, elsewhere, kept, replaced, hairpins, handed_on, masqueraded, .. } = *self;
        let Self { refused, dropped, stayed, early, errors, begun_again, sockets, .. } = *self;
        let Self { fragmented, astray, .. } = *self;
        let first = [connections, elsewhere, kept, replaced, hairpins, handed_on, masqueraded];
        first
            .into_iter()
            .chain([refused, dropped, stayed, early, errors, begun_again, sockets, fragmented, astray])
            .all(|count| count > 0)
    }
}

/// What the packets of a connection become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    source: SocketAddr,
    destination: SocketAddr,
}

/// Which source the packets of a connection have behind this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The client's own.
    Kept,
    /// This node's address.
    Node,
    /// The client's own, and the destination stays, too: another node answers.
    HandedOn,
}

/// A cluster's connections, one after the other.
pub(super) struct Run<'a> {
    node: &'a Node,
    cluster: &'a Cluster,
    random: &'a mut Random,
    seen: &'a mut Seen,
    reader: Reader,
    /// Which endpoint a client of a Service that wants affinity was given.
    clients: BTreeMap<(ServiceName, IpAddr), IpAddr>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        node: &'a Node,
        cluster: &'a Cluster,
        random: &'a mut Random,
        seen: &'a mut Seen,
    ) -> Result<Self> {
        let reader = node.reader()?;
        Ok(Self { node, cluster, random, seen, reader, clients: BTreeMap::new() })
    }

    /// Another connection, from its first packet to its end.
    pub(super) fn connection(&mut self) -> Result<()> {
        self.seen.connections += 1;
        let attempt = attempt::any(self.random, self.cluster, self.seen.connections);
        let packet = attempt.first(self.random);
        let context = format!("{attempt:?}: {packet:?}");
        self.follow(&attempt, &packet).context(context)
    }

    /// Sockets that are connected to what there is, and to what is nearly there.
    pub(super) fn sockets(&mut self) -> Result<()> {
        for number in 0..10 {
            let to = attempt::any(self.random, self.cluster, number).to();
            let led = sockets::connect(&self.reader, self.cluster, to);
            self.seen.sockets += usize::from(led.with_context(|| format!("a socket, connected to {to}"))?);
        }
        Ok(())
    }

    fn follow(&mut self, attempt: &Attempt, packet: &Packet) -> Result<()> {
        let connection = &attempt.connection;
        let is_reset = outcome::is_reset(packet);
        if attempt.client == Client::Leaving {
            return self.leave(attempt, packet);
        }
        // A reset of a connection that nobody knows is nobody's.
        let verdict = if is_reset { Verdict::Elsewhere } else { self.cluster.verdict(connection) };
        let trace = (!is_reset).then(|| said::about(&self.reader, attempt, attempt.begins(packet)));
        let before = self.node.drops()?;
        let ran = self.node.run(attempt.program(), packet)?;
        let noted = outcome::noted(&before, &self.node.drops()?);
        let result = match &verdict {
            Verdict::Elsewhere => {
                self.seen.elsewhere += 1;
                outcome::is_left(&ran, packet, &noted)
            }
            Verdict::Dropped(why) => {
                self.seen.dropped += 1;
                outcome::is_dropped(&ran, *why, &noted)
            }
            Verdict::Refused => {
                let told = outcome::is_refused(&ran, packet, &noted)?;
                self.seen.refused += usize::from(told);
                Ok(())
            }
            Verdict::To(all) => return self.go_on(attempt, packet, &ran, all, trace.as_ref()),
        };
        result.with_context(|| format!("{verdict:?}, {noted:?}, {ran:?}"))?;
        trace.map_or(Ok(()), |trace| said::agrees(&trace, &verdict))
    }

    /// A pod's packet on its way out of the cluster: Services are not looked at any more.
    fn leave(&mut self, attempt: &Attempt, packet: &Packet) -> Result<()> {
        let to = attempt.connection.destination;
        let is_outside = !attempt::is_in_cluster(&to) && !self.cluster.nodes.contains_key(&to);
        let is_masqueraded =
            self.node.masquerade && is_outside && attempt.begins(packet) && !outcome::is_reset(packet);
        if self.cluster.verdict(&attempt.connection) == Verdict::Elsewhere && !outcome::is_reset(packet) {
            let trace = said::about(&self.reader, attempt, attempt.begins(packet));
            said::leaves(&trace, is_masqueraded)?;
        }
        let ran = self.node.run(attempt.program(), packet)?;
        if !is_masqueraded {
            self.seen.elsewhere += 1;
            return outcome::is_left(&ran, packet, &[]).with_context(|| format!("{ran:?}"));
        }
        self.seen.masqueraded += 1;
        let observed = outcome::sent(&ran, packet).with_context(|| format!("{ran:?}"))?;
        let mapping = Mapping { source: source_of(&observed)?, destination: attempt.to() };
        self.check_source(attempt, Source::Node, mapping.source)?;
        is_mapped(&observed, packet, mapping)?;
        self.middle(attempt, packet, &observed, mapping)
    }

    /// A connection that goes to one of these.
    fn go_on(
        &mut self,
        attempt: &Attempt,
        packet: &Packet,
        ran: &pagurus_tests::test_run::Ran,
        all: &BTreeSet<Backend>,
        trace: Option<&pagurus_agent_core::trace::Trace>,
    ) -> Result<()> {
        let context = format!("to one of {all:?}: {ran:?}");
        // The middle of a connection of which nothing is known has no port any more where its source is to be replaced.
        let is_lost = attempt.connection.protocol == Protocol::Tcp && !attempt.begins(packet);
        let may_be_lost = is_lost && all.iter().any(|backend| self.source(attempt, backend) == Source::Node);
        if may_be_lost && outcome::is_reset_for(ran, packet) {
            self.seen.refused += 1;
            return trace.map_or(Ok(()), said::is_lost).context(context);
        }
        // What this node's own raw sockets send to it answers by no device with programs.
        let is_own =
            |ip: &IpAddr| attempt.client == Client::Node && NODE.iter().any(|own| own.parse() == Ok(*ip));
        if all.iter().any(|backend| is_own(&backend.ip)) && outcome::is_told(ran, packet) {
            self.seen.refused += 1;
            return trace.map_or(Ok(()), said::is_own).context(context);
        }
        let observed = outcome::sent(ran, packet).context(context.clone())?;
        let (mapping, chosen, source) =
            self.mapping(attempt, packet, &observed, all).context(context.clone())?;
        ensure!(!is_own(&chosen.ip), "to this node itself, where it is lost: {context}");
        ensure!(!is_lost || source != Source::Node, "with a port that nobody knows: {context}");
        if let Some(trace) = trace {
            said::agrees_on(trace, &chosen, source, all.len(), self.may_be_random(attempt))?;
            let next = said::about(&self.reader, attempt, false);
            said::knows(&next, &chosen)?;
        }
        if source == Source::HandedOn {
            self.again(attempt, mapping)?;
            return self.long(attempt, mapping);
        }
        self.middle(attempt, packet, &observed, mapping)?;
        if attempt.connection.protocol == Protocol::Tcp && self.random.once_in(4) {
            self.begin_again(attempt, mapping, all)?;
        }
        Ok(())
    }

    /// Checks what the first packet became; the backend that was chosen.
    fn mapping(
        &mut self,
        attempt: &Attempt,
        packet: &Packet,
        observed: &Packet,
        all: &BTreeSet<Backend>,
    ) -> Result<(Mapping, Backend, Source)> {
        let is_handed_on = (observed.destination, observed.ports()) == (packet.destination, packet.ports());
        let to = if is_handed_on && self.is_direct(attempt) {
            // What it says of the backend only the table of connections knows.
            said::chosen(&self.reader, attempt).context("handed on, and not known")?
        } else {
            destination_of(observed)?
        };
        let protocol = attempt.connection.protocol;
        let chosen = Backend { ip: to.ip(), port: to.port(), protocol };
        ensure!(all.contains(&chosen), "to {chosen}, which is none of them");
        let source = self.source(attempt, &chosen);
        let mapping = match source {
            Source::HandedOn => Mapping { source: attempt.from(), destination: attempt.to() },
            _ => Mapping { source: source_of(observed)?, destination: to },
        };
        self.check_source(attempt, source, mapping.source)?;
        is_mapped(observed, packet, mapping)?;
        self.stay(attempt, &chosen, all)?;
        match source {
            Source::Kept => self.seen.kept += 1,
            Source::HandedOn => self.seen.handed_on += 1,
            Source::Node if chosen.ip == attempt.connection.source => self.seen.hairpins += 1,
            Source::Node => self.seen.replaced += 1,
        }
        Ok((mapping, chosen, source))
    }

    /// Whether endpoints of other nodes answer this client themselves.
    fn is_direct(&self, attempt: &Attempt) -> bool {
        let holder = self.cluster.holder(&attempt.connection);
        let is = matches!(holder, Some(Holder::Service(service, _, way)) if is_direct(service, way));
        is && !attempt.connection.is_inside
    }

    /// Whether the backend may be any: else the tables decide, the same each time.
    fn may_be_random(&self, attempt: &Attempt) -> bool {
        use pagurus_agent_core::services::Algorithm;
        use pagurus_agent_core::services::kube_proxy::Way;
        match self.cluster.holder(&attempt.connection) {
            Some(Holder::Service(service, _, way)) => {
                service.algorithm == Algorithm::Random
                    && way != Way::ClusterIp
                    && service.affinity == 0
                    && !attempt.connection.is_inside
            }
            _ => false,
        }
    }

    /// The source that a connection must have behind this node.
    fn source(&self, attempt: &Attempt, chosen: &Backend) -> Source {
        let is_local = self.cluster.is_local(chosen);
        match attempt.client {
            Client::Outside if is_local => Source::Kept,
            Client::Outside if self.is_direct(attempt) => Source::HandedOn,
            Client::Outside => Source::Node,
            // Its answers must come this way, too.
            Client::Pod if chosen.ip == attempt.connection.source => Source::Node,
            Client::Pod if !is_local && self.node.masquerade => {
                let is_known =
                    attempt::is_in_cluster(&chosen.ip) || self.cluster.nodes.contains_key(&chosen.ip);
                if is_known { Source::Kept } else { Source::Node }
            }
            Client::Pod | Client::Node | Client::Leaving => Source::Kept,
        }
    }

    fn check_source(&self, attempt: &Attempt, wanted: Source, found: SocketAddr) -> Result<()> {
        if wanted != Source::Node {
            ensure!(found == attempt.from(), "from {found}, and the client's address is to be kept");
            return Ok(());
        }
        let node: IpAddr = NODE[usize::from(found.is_ipv6())].parse()?;
        ensure!(found.ip() == node, "from {found}, and not this node's address");
        ensure!(self.node.nat_ports.contains(&found.port()), "from {found}, a port of others");
        Ok(())
    }

    /// Clients stay with their endpoint where the Service wants it.
    fn stay(&mut self, attempt: &Attempt, chosen: &Backend, all: &BTreeSet<Backend>) -> Result<()> {
        let connection = &attempt.connection;
        let Some(Holder::Service(service, _, _)) = self.cluster.holder(connection) else { return Ok(()) };
        // Where every node must choose alike, what one of them remembers does not count.
        if service.affinity == 0 || self.is_direct(attempt) {
            return Ok(());
        }
        let key = (service.name.clone(), connection.source);
        if let Some(known) = self.clients.insert(key, chosen.ip)
            && all.iter().any(|backend| backend.ip == known)
        {
            ensure!(known == chosen.ip, "the client had {known} and got {chosen}");
            self.seen.stayed += 1;
        }
        Ok(())
    }

    /// Later packets, answers, errors.
    fn middle(
        &mut self,
        attempt: &Attempt,
        packet: &Packet,
        observed: &Packet,
        mapping: Mapping,
    ) -> Result<()> {
        self.again(attempt, mapping)?;
        self.long(attempt, mapping)?;
        let Some(program) = attempt.program_of_answers(&mapping.destination.ip()) else { return Ok(()) };
        for turn in 0..2 {
            let answer = attempt::answer(self.random, mapping.destination, mapping.source, attempt, turn);
            let back = Mapping { source: attempt.to(), destination: attempt.from() };
            if program == programs::FROM_OUTSIDE {
                self.early(&answer, back)?;
            }
            self.becomes("an answer", program, &answer, back)?;
        }
        self.again(attempt, mapping)?;
        if attempt.connection.protocol == Protocol::Udp && self.random.once_in(2) {
            let id = self.next_id();
            let answer = attempt::long(self.random, mapping.destination, mapping.source, id);
            self.in_fragments(
                program,
                &answer,
                Mapping { source: attempt.to(), destination: attempt.from() },
            )?;
        }
        if self.random.once_in(2) {
            self.error(attempt, packet, observed, program)?;
        }
        Ok(())
    }

    /// A packet in the middle of the connection: it becomes what the first became.
    fn again(&mut self, attempt: &Attempt, mapping: Mapping) -> Result<()> {
        let packet = attempt.next(self.random);
        if attempt.program() == programs::FROM_OUTSIDE {
            self.early(&packet, mapping)?;
        }
        self.becomes("a later packet", attempt.program(), &packet, mapping)
    }

    /// A long datagram, now and then.
    fn long(&mut self, attempt: &Attempt, mapping: Mapping) -> Result<()> {
        if attempt.connection.protocol != Protocol::Udp || self.random.once_in(2) {
            return Ok(());
        }
        let id = self.next_id();
        let packet = attempt.long(self.random, id);
        self.in_fragments(attempt.program(), &packet, mapping)
    }

    /// Another one for each datagram in fragments.
    fn next_id(&mut self) -> u32 {
        self.seen.fragmented += 1;
        self.seen.fragmented as u32 & 0xffff
    }

    /// A datagram in fragments, in order or not: behind the first one all become what the datagram should. One that comes before it is
    /// nobody's: it goes nowhere, or on as it is.
    fn in_fragments(&mut self, program: &str, packet: &Packet, mapping: Mapping) -> Result<()> {
        let size = 8 * (4 + self.random.below(20));
        let parts = packet.fragments(size);
        let first = if self.random.once_in(2) { 0 } else { self.random.below(parts.len()) };
        let context = |part: &Packet| format!("a fragment at {program}, to become {mapping:?}: {part:?}");
        for part in parts.iter().skip(1).take(first) {
            let before = self.node.drops()?;
            let ran = self.node.run(program, part).with_context(|| context(part))?;
            let noted = outcome::noted(&before, &self.node.drops()?);
            outcome::is_astray(&ran, part, &noted).with_context(|| context(part))?;
            self.seen.astray += 1;
        }
        let mut whole = Vec::new();
        // Those that came too early are sent once more, and the last one may overtake others.
        let mut order: Vec<usize> = (0..parts.len()).collect();
        if self.random.once_in(2) {
            order[1..].reverse();
        }
        for place in order {
            let part = &parts[place];
            let ran = self.node.run(program, part).with_context(|| context(part))?;
            whole.push((place, outcome::sent(&ran, part).with_context(|| context(part))?));
        }
        whole.sort_by_key(|(place, _)| *place);
        let whole: Vec<Packet> = whole.into_iter().map(|(_, part)| part).collect();
        let observed = joined(&whole).with_context(|| context(packet))?;
        let id = if packet.is_v4() { packet.id } else { 0 };
        is_mapped(&observed, &Packet { id, ..packet.clone() }, mapping).with_context(|| context(packet))
    }

    fn becomes(&self, what: &str, program: &str, packet: &Packet, mapping: Mapping) -> Result<()> {
        let context = || format!("{what} at {program}, to become {mapping:?}: {packet:?}");
        let ran = self.node.run(program, packet).with_context(context)?;
        let observed = outcome::sent(&ran, packet).with_context(context)?;
        is_mapped(&observed, packet, mapping).with_context(context)
    }

    /// What XDP makes of it, if anything, is the same.
    fn early(&mut self, packet: &Packet, mapping: Mapping) -> Result<()> {
        let packet = packet.clone().macs(GATEWAY, OWN);
        let ran = self.node.run_early(&packet)?;
        let context = || format!("early, to become {mapping:?}: {packet:?}, {ran:?}");
        if let Some(observed) = outcome::sent_early(&ran, &packet).with_context(context)? {
            self.seen.early += 1;
            is_mapped(&observed, &packet, mapping).with_context(context)?;
        }
        Ok(())
    }

    /// An ICMP error about what the first packet became: the client must understand it.
    fn error(&mut self, attempt: &Attempt, packet: &Packet, observed: &Packet, program: &str) -> Result<()> {
        let Some((error, is_backends)) = attempt::error(self.random, observed, program) else {
            return Ok(());
        };
        let ran = self.node.run(program, &error)?;
        let context = || format!("an ICMP error at {program}: {error:?} became {ran:?}");
        let restored = outcome::sent(&ran, &error).with_context(context)?;
        let from = if is_backends { attempt.connection.destination } else { error.source };
        let to = attempt.connection.source;
        ensure!(
            (restored.source, restored.destination) == (from, to),
            "{}: from {from} to {to}: {restored:?}",
            context()
        );
        outcome::quotes(&restored, &error, packet, observed).with_context(context)?;
        self.seen.errors += 1;
        Ok(())
    }

    /// The client ends the connection and begins another from the same port.
    fn begin_again(&mut self, attempt: &Attempt, mapping: Mapping, all: &BTreeSet<Backend>) -> Result<()> {
        self.becomes("a reset", attempt.program(), &attempt.reset(), mapping)?;
        let packet = attempt.syn(self.random);
        let ran = self.node.run(attempt.program(), &packet)?;
        let context = || format!("begun again, to one of {all:?}: {packet:?} became {ran:?}");
        let observed = outcome::sent(&ran, &packet).with_context(context)?;
        self.mapping(attempt, &packet, &observed, all).with_context(context)?;
        self.seen.begun_again += 1;
        Ok(())
    }
}

fn source_of(packet: &Packet) -> Result<SocketAddr> {
    Ok(SocketAddr::new(packet.source, packet.ports().context("no ports")?.0))
}

fn destination_of(packet: &Packet) -> Result<SocketAddr> {
    Ok(SocketAddr::new(packet.destination, packet.ports().context("no ports")?.1))
}

/// Everything but these addresses and ports is as it was.
fn is_mapped(observed: &Packet, original: &Packet, mapping: Mapping) -> Result<()> {
    let Mapping { source, destination } = mapping;
    let wanted = original.clone().from(&source.to_string()).to(&destination.to_string());
    let wanted = Packet { ethernet: observed.ethernet, ttl: observed.ttl, ..wanted };
    ensure!(*observed == wanted, "{observed:?} is not from {source} to {destination}, and else as it was");
    Ok(())
}
