//! Pools of addresses: from the ConfigMap and the flag.
//!
//! Must not know: who gets addresses of them.

use k8s_openapi::api::core::v1::ConfigMap;
use pagurus_agent_core::lb::{Pool, PoolSpec};

/// Key of the ConfigMap's data.
const KEY: &str = "pools";

/// All pools that make sense, those of the flag first; and what is wrong with the others.
pub(super) fn read(map: Option<&ConfigMap>, of_flag: &[String]) -> (Vec<Pool>, Vec<String>) {
    let mut problems = Vec::new();
    let mut specs = Vec::new();
    if !of_flag.is_empty() {
        let (cidrs, ranges) = of_flag.iter().cloned().partition(|text: &String| text.contains('/'));
        specs.push(PoolSpec { name: "flag".to_owned(), cidrs, ranges, ..PoolSpec::default() });
    }
    if let Some(text) = map.and_then(|map| map.data.as_ref()).and_then(|data| data.get(KEY)) {
        // Each pool by itself: one that is damaged takes no other with it.
        match serde_saphyr::from_str::<Vec<serde_json::Value>>(text) {
            Ok(list) => {
                for value in list {
                    match serde_json::from_value(value) {
                        Ok(spec) => specs.push(spec),
                        Err(error) => problems.push(format!("a pool makes no sense: {error}")),
                    }
                }
            }
            Err(error) => problems.push(format!("data.{KEY} is no YAML list of pools: {error}")),
        }
    }
    let mut pools = Vec::new();
    for spec in specs {
        match Pool::new(&spec) {
            Ok(pool) => pools.push(pool),
            Err(error) => problems.push(error.to_string()),
        }
    }
    (pools, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: Option<&str>, flag: &[&str], names: &[&str], problems: usize) {
        let map = yaml.map(|yaml| ConfigMap {
            data: Some([(KEY.to_owned(), yaml.to_owned())].into()),
            ..ConfigMap::default()
        });
        let flag: Vec<String> = flag.iter().map(|text| (*text).to_owned()).collect();
        let (pools, told) = read(map.as_ref(), &flag);
        let found: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!((found.as_slice(), told.len()), (names, problems), "{told:?}");
    }

    #[test]
    fn pools_of_both_places() {
        check(None, &[], &[], 0);
        check(None, &["10.0.0.0/24", "fd00::1-fd00::9"], &["flag"], 0);
        check(
            Some("- name: a\n  cidrs: [10.0.0.0/24]\n- name: b\n  ranges: [10.1.0.1-10.1.0.9]\n"),
            &["10.2.0.1"],
            &["flag", "a", "b"],
            0,
        );
        check(Some("- name: a\n  cidrs: [x]\n- name: b\n  ranges: [10.1.0.1]\n- 7\n"), &[], &["b"], 2);
        check(Some("name: a"), &[], &[], 1);
    }
}
