//! Ports of this node that lead to its pods, from what the pod network knows of them.
//!
//! Must not know: maps.

use std::collections::BTreeMap;

use pagurus_agent_core::addr::Protocol;
use pagurus_agent_core::services::{Desired, HostPort, ServiceName};
use pagurus_cni::commands::Connected;
use pagurus_cni::ipam::Attachment;

/// Makes the host ports those of these pods.
pub(super) fn set(desired: &mut Desired, pods: &[Connected]) {
    let wanted = wanted(pods);
    let gone: Vec<_> =
        desired.host_port_keys().filter(|key| !wanted.contains_key(&***key)).cloned().collect();
    for key in gone {
        desired.remove_host_port(&key);
    }
    for (key, host_port) in wanted {
        desired.set_host_port(&key, host_port);
    }
}

/// The pod (namespace and name) whose host port this is; none if it is a Service.
pub(super) fn pod(name: &ServiceName) -> Option<(&str, &str)> {
    // As `wanted` names them, which begins with the pod.
    let (pod, _) = Some(&*name.name).filter(|_| name.namespace.is_empty())?.split_once(' ')?;
    pod.split_once('/')
}

/// The uids of these pods, as far as the runtime says them, by namespace and name.
pub(super) fn uids(pods: &[Connected]) -> BTreeMap<(String, String), String> {
    let told = pods.iter().map(|pod| &pod.attachment).filter(|attachment| !attachment.pod_uid.is_empty());
    let uid = |attachment: &Attachment| {
        let (namespace, name) = attachment.pod.split_once('/')?;
        Some(((namespace.to_owned(), name.to_owned()), attachment.pod_uid.clone()))
    };
    told.filter_map(uid).collect()
}

/// Each port once for each of the pod's addresses, by a name that tells which it is.
fn wanted(pods: &[Connected]) -> BTreeMap<String, HostPort> {
    let mut wanted = BTreeMap::new();
    for attachment in pods.iter().map(|pod| &pod.attachment) {
        for port in &attachment.host_ports {
            let protocol = match port.protocol.as_str() {
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            for target_ip in &attachment.ips {
                if port.host_ip.is_some_and(|ip| ip.is_ipv4() != target_ip.is_ipv4()) {
                    continue;
                }
                // Two containers of one runtime id have two devices.
                let key = format!(
                    "{} {port} {target_ip} {}@{}",
                    attachment.pod, attachment.key.container_id, attachment.key.ifname
                );
                let host_port = HostPort {
                    ip: port.host_ip,
                    port: port.host_port,
                    protocol,
                    target_ip: *target_ip,
                    target_port: port.container_port,
                };
                wanted.insert(key, host_port);
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use pagurus_cni::ipam::{self, Key};
    use pagurus_cni::netlink::Mac;

    use super::*;

    fn pod(name: &str, ips: &[&str], ports: &[(Option<&str>, u16, &str)]) -> Connected {
        let host_ports = ports.iter().map(|(ip, port, protocol)| ipam::HostPort {
            host_ip: ip.map(|ip| ip.parse().expect("an address")),
            host_port: *port,
            container_port: 80,
            protocol: (*protocol).to_owned(),
        });
        let attachment = Attachment {
            key: Key { container_id: name.to_owned(), ifname: "eth0".into() },
            netns: "/run/netns/x".into(),
            pod: format!("ns/{name}"),
            pod_uid: format!("uid-of-{name}"),
            ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
            host_ports: host_ports.collect(),
            boot_id: String::new(),
        };
        Connected { attachment, ifindex: 7, mac: Mac([2; 6]), host_mac: Mac([3; 6]) }
    }

    #[test]
    fn host_ports_follow_the_pods() {
        let mut desired = Desired::default();
        let both = ["10.244.0.7", "fd00::7"];
        let check = |desired: &mut Desired, pods: &[Connected], expected: &[&str]| {
            set(desired, pods);
            let keys: Vec<String> = desired.host_port_keys().map(ToString::to_string).collect();
            assert_eq!(keys, expected);
        };
        check(
            &mut desired,
            &[pod("a", &both, &[(None, 8080, "tcp"), (Some("fd77::1"), 53, "udp")]), pod("b", &both, &[])],
            &[
                "ns/a 8080/tcp 10.244.0.7 a@eth0",
                "ns/a 8080/tcp fd00::7 a@eth0",
                "ns/a [fd77::1]:53/udp fd00::7 a@eth0",
            ],
        );
        check(
            &mut desired,
            &[pod("c", &["10.244.0.7"], &[(None, 8080, "sctp")])],
            &["ns/c 8080/sctp 10.244.0.7 c@eth0"],
        );
        let key = desired.host_port_keys().next().expect("one").clone();
        assert_eq!(super::pod(&ServiceName::of_host_port(&key)), Some(("ns", "c")));
        assert_eq!(super::pod(&ServiceName::new("ns", "c")), None);
        check(&mut desired, &[], &[]);
        let mut nameless = pod("d", &[], &[]);
        nameless.attachment.pod_uid.clear();
        let known = uids(&[pod("c", &[], &[]), nameless]);
        assert_eq!(known, [(("ns".to_owned(), "c".to_owned()), "uid-of-c".to_owned())].into());
    }
}
