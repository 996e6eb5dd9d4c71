//! `pagurus-agent services`: each Service with its frontends and backends.
//!
//! Must not know: how maps are read.

use std::collections::BTreeMap;
use std::io::Write;

use pagurus_agent_core::addr::Frontend;
use pagurus_agent_core::services::plan::{Extent, Flags, Value as Behind};
use pagurus_agent_core::trace::Maps as _;
use pagurus_agent_datapath::reading::Reader;
use serde_json::{Value, json};

/// Prints all Services.
pub(super) fn show(reader: &Reader, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut services: BTreeMap<(String, u32), Vec<(Frontend, Behind)>> = BTreeMap::new();
    for (frontend, value) in reader.frontends()? {
        let number = value.service.0;
        let name = reader.name(number).unwrap_or_else(|| "unnamed".to_owned());
        services.entry((name, number)).or_default().push((frontend, value));
    }
    if json {
        let services: Vec<Value> =
            services.iter().map(|((name, _), frontends)| as_json(reader, name, frontends)).collect();
        return Ok(writeln!(out, "{:#}", Value::from(services))?);
    }
    for ((name, _), frontends) in &services {
        writeln!(out, "{name}")?;
        for (frontend, value) in frontends {
            let flags = words(value.flags);
            let flags = if flags.is_empty() { String::new() } else { format!(" ({})", flags.join(", ")) };
            writeln!(out, "  {frontend}{flags}")?;
            writeln!(out, "    inside:  {}", texts(reader, value.inside).join(" "))?;
            if value.flags.has(Flags::EXTERNAL) && value.outside != value.inside {
                writeln!(out, "    outside: {}", texts(reader, value.outside).join(" "))?;
            }
        }
    }
    Ok(())
}

/// The words for what a frontend is.
pub(super) fn words(flags: Flags) -> Vec<&'static str> {
    let all = [
        (Flags::EXTERNAL, "external"),
        (Flags::OUTSIDE_LOCAL, "externalTrafficPolicy=Local"),
        (Flags::INSIDE_LOCAL, "internalTrafficPolicy=Local"),
        (Flags::AFFINITY, "sessionAffinity=ClientIP"),
        (Flags::SOURCE_RANGES, "loadBalancerSourceRanges"),
        (Flags::DSR, "dsr"),
        (Flags::RANDOM, "random"),
        (Flags::HOST_PORT, "hostPort"),
    ];
    all.into_iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, word)| word).collect()
}

fn texts(reader: &Reader, extent: Extent) -> Vec<String> {
    let backends = reader.backends(extent.first, extent.count).into_iter();
    let texts: Vec<String> =
        backends.map(|(_, backend, local)| format!("{backend}{}", if local { "*" } else { "" })).collect();
    if texts.is_empty() { vec!["none".to_owned()] } else { texts }
}

fn as_json(reader: &Reader, name: &str, frontends: &[(Frontend, Behind)]) -> Value {
    let backends = |extent: Extent| -> Vec<Value> {
        let all = reader.backends(extent.first, extent.count).into_iter();
        all.map(|(id, backend, local)| {
            json!({"id": id.0, "address": backend.to_string(), "local": local,
                   "connections": reader.backend_connections(id)})
        })
        .collect()
    };
    let frontend = |(frontend, value): &(Frontend, Behind)| {
        json!({
            "address": frontend.to_string(), "flags": words(value.flags), "generation": value.generation,
            "affinitySeconds": value.affinity, "maglevPlaces": value.maglev.count,
            "inside": backends(value.inside), "outside": backends(value.outside),
        })
    };
    let number = frontends.first().map(|(_, value)| value.service).unwrap_or_default();
    let counts = reader.service_counts(number);
    json!({
        "name": name, "number": number.0, "frontends": frontends.iter().map(frontend).collect::<Vec<_>>(),
        "connections": counts.connections, "refused": counts.refused, "dropped": counts.dropped,
    })
}
