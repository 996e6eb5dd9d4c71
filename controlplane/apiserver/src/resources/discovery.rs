//! EndpointSlices.

use jiff::Timestamp;
use serde_json::Value;

use super::cells;
use super::fields::{Fields, default, items_mut};
use super::plain::Plain;

/// How many ports or addresses the row shows.
const SHOWN: usize = 3;

/// The strategy of `endpointslices`.
pub(crate) static ENDPOINT_SLICES: Plain =
    Plain { default: default_slice, cells: slice_cells, generations: true, ..Plain::NEW };

fn default_slice(slice: &mut Value) {
    for port in items_mut(slice, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}

fn slice_cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports = slice.items("ports").iter().map(|port| match port.some_int("port") {
        Some(number) => number.to_string(),
        None => port.some_text("name").unwrap_or("*").to_owned(),
    });
    let addresses = slice.items("endpoints").iter().flat_map(|e| e.texts("addresses")).map(str::to_owned);
    vec![
        cells::name(slice),
        slice.text("addressType").into(),
        few(ports).into(),
        few(addresses).into(),
        cells::age(slice, now),
    ]
}

fn few(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    let shown = texts[..texts.len().min(SHOWN)].join(",");
    match texts.len() {
        0 => "<unset>".to_owned(),
        n if n > SHOWN => format!("{shown} + {} more...", n - SHOWN),
        _ => shown,
    }
}
