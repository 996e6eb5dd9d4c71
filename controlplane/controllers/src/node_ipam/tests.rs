//! Never two nodes with one range, whatever comes and goes.

use proptest::prelude::*;

use super::*;

fn node(id: usize, ranges: &[IpNet]) -> Arc<Node> {
    let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": format!("n{id}"), "uid": format!("u{id}")},
            "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
        }))
        .unwrap(),
    )
}

fn pools() -> Vec<Pool> {
    vec![
        Pool::new("10.0.0.0/20".parse().unwrap(), 24).unwrap(),
        Pool::new("fd00::/60".parse().unwrap(), 64).unwrap(),
    ]
}

#[test]
fn keeps_what_nodes_have() {
    let held: IpNet = "10.0.0.0/24".parse().unwrap();
    let nodes = [node(0, &[held]), node(1, &[])];
    let (given, without) = plan(&nodes, &BTreeMap::new(), &mut pools());
    assert!(without.is_empty());
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].1, ["10.0.1.0/24".parse::<IpNet>().unwrap(), "fd00::/64".parse().unwrap()]);
}

#[test]
fn an_unsettled_range_goes_to_its_node_only() {
    let first: Vec<IpNet> = vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    let unsettled = BTreeMap::from([("u1".to_owned(), first.clone())]);
    let (given, _) = plan(&[node(0, &[]), node(1, &[])], &unsettled, &mut pools());
    assert_eq!(given[1].1, first);
    assert_ne!(given[0].1, first);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Nodes join and leave, writes fail or have unknown outcomes, the controller restarts.
    #[test]
    fn never_doubles(steps in proptest::collection::vec((0..20_usize, 0..5_u8), 1..120)) {
        let mut nodes: BTreeMap<usize, Vec<IpNet>> = BTreeMap::new();
        let mut unsettled: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
        let mut pools = pools();
        let mut next_id = 0;
        for (pick, what) in steps {
            match what {
                0 | 1 => { nodes.insert(next_id, vec![]); next_id += 1; }
                2 => {
                    let id = nodes.keys().nth(pick % nodes.len().max(1)).copied();
                    if let Some(id) = id { nodes.remove(&id); unsettled.remove(&format!("u{id}")); }
                }
                3 => pools = self::pools(),
                _ => {}
            }
            let view: Vec<_> = nodes.iter().map(|(id, ranges)| node(*id, ranges)).collect();
            let (given, without) = plan(&view, &unsettled, &mut pools);
            prop_assert!(without.is_empty() || nodes.len() > 16);
            for (index, (node, ranges)) in given.into_iter().enumerate() {
                let id: usize = name(&node.metadata)[1..].parse().unwrap();
                match (pick + index) % 3 {
                    0 => { unsettled.insert(format!("u{id}"), ranges); }
                    _ => { unsettled.remove(&format!("u{id}")); nodes.insert(id, ranges); }
                }
            }
            let mut all: Vec<IpNet> = nodes.values().flatten().copied().collect();
            all.extend(unsettled.iter().filter(|(id, _)| nodes[&id[1..].parse().unwrap()].is_empty()).flat_map(|(_, r)| r));
            let count = all.len();
            all.sort();
            all.dedup();
            prop_assert_eq!(all.len(), count);
        }
    }
}
