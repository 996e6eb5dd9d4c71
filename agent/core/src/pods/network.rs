//! The files by which a pod finds others: resolv.conf (as a DNS configuration) and /etc/hosts.
//! Must not know how pods are connected.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::spec::{DnsPolicy, Pod};

/// A DNS configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// What the cluster offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Addresses of the cluster's DNS service; empty if there is none.
    pub servers: Vec<IpAddr>,
    /// The cluster's domain.
    pub domain: String,
}

/// The most servers a resolver looks at.
const MAX_SERVERS: usize = 3;
/// The most search domains.
const MAX_SEARCHES: usize = 32;

/// Reads a resolv.conf.
pub fn read_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let rest = words.map(str::to_owned);
        match first {
            "nameserver" => dns.servers.extend(rest.take(1)),
            "search" | "domain" => dns.searches = rest.map(|d| trim_dot(&d)).collect(),
            "options" => dns.options.extend(rest),
            _ => {}
        }
    }
    dns
}

fn trim_dot(domain: &str) -> String {
    if domain == "." { domain.to_owned() } else { domain.trim_end_matches('.').to_owned() }
}

/// The DNS configuration of a pod. A cluster without DNS gives its pods the node's.
pub fn pod_dns(pod: &Pod, cluster: &ClusterDns, node: &Dns) -> Dns {
    let spec = &pod.spec;
    let wants_cluster = match spec.dns_policy {
        DnsPolicy::ClusterFirst => !spec.host_network,
        DnsPolicy::ClusterFirstWithHostNet => true,
        DnsPolicy::Default | DnsPolicy::None => false,
    };
    let mut dns = if spec.dns_policy == DnsPolicy::None {
        Dns::default()
    } else if wants_cluster && !cluster.servers.is_empty() {
        let domain = &cluster.domain;
        let mut searches =
            vec![format!("{}.svc.{domain}", pod.name.namespace), format!("svc.{domain}"), domain.clone()];
        searches.extend(node.searches.iter().cloned());
        let servers = cluster.servers.iter().map(IpAddr::to_string).collect();
        Dns { servers, searches, options: vec!["ndots:5".to_owned()] }
    } else {
        node.clone()
    };
    if let Some(more) = &spec.dns_config {
        dns.servers.extend(more.nameservers.iter().cloned());
        dns.searches.extend(more.searches.iter().cloned());
        for option in &more.options {
            let text = match &option.value {
                Some(value) if !value.is_empty() => format!("{}:{value}", option.name),
                _ => option.name.clone(),
            };
            let name = |entry: &String| entry.split(':').next().unwrap_or_default().to_owned();
            dns.options.retain(|entry| name(entry) != option.name);
            dns.options.push(text);
        }
    }
    without_repeats(&mut dns.servers, MAX_SERVERS);
    without_repeats(&mut dns.searches, MAX_SEARCHES);
    dns
}

fn without_repeats(entries: &mut Vec<String>, most: usize) {
    let mut seen = std::collections::BTreeSet::new();
    entries.retain(|entry| seen.insert(entry.clone()));
    entries.truncate(most);
}

/// The name of a pod below its subdomain, if it has one: `host.subdomain.namespace.svc.domain`.
pub fn full_hostname(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = &pod.spec.subdomain;
    (!subdomain.is_empty())
        .then(|| format!("{}.{subdomain}.{}.svc.{domain}", pod.hostname(), pod.name.namespace))
}

/// The hostname that a pod's processes see.
pub fn visible_hostname(pod: &Pod, domain: &str) -> String {
    match full_hostname(pod, domain) {
        Some(full) if pod.spec.set_hostname_as_fqdn == Some(true) && full.len() <= 64 => full,
        _ => pod.hostname(),
    }
}

/// The first lines of a /etc/hosts that we keep.
const HEAD: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The content of a pod's /etc/hosts. `api_server` is the address of the API server's Service: while the cluster has no
/// DNS, this file is where pods find it. `node_hosts` is the node's own file, for pods on the node's network.
pub fn hosts_file(
    pod: &Pod,
    ips: &[IpAddr],
    cluster: &ClusterDns,
    api_server: Option<&str>,
    node_hosts: &str,
) -> String {
    let mut text = if pod.spec.host_network {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        HEAD.to_owned()
    };
    if !pod.spec.host_network {
        let hostname = pod.hostname();
        for ip in ips {
            match full_hostname(pod, &cluster.domain) {
                Some(full) => writeln!(text, "{ip}\t{full}\t{hostname}"),
                None => writeln!(text, "{ip}\t{hostname}"),
            }
            .unwrap_or_default();
        }
        if let (Some(ip), true) = (api_server, cluster.servers.is_empty()) {
            let domain = &cluster.domain;
            text +=
                &format!("{ip}\tkubernetes.default.svc.{domain} kubernetes.default.svc kubernetes.default\n");
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
        for alias in &pod.spec.host_aliases {
            text += &format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        Pod::decode(json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn cluster(server: Option<&str>) -> ClusterDns {
        ClusterDns {
            servers: server.iter().map(|s| s.parse().unwrap()).collect(),
            domain: "cluster.local".into(),
        }
    }

    #[test]
    fn dns_by_policy() {
        let node =
            read_resolv_conf("# x\nnameserver 192.0.2.53\nsearch example.com.\noptions edns0 timeout:1\n");
        assert_eq!(node.options, ["edns0", "timeout:1"]);
        let check =
            |spec: Value, cluster: &ClusterDns, servers: &[&str], searches: &[&str], options: &[&str]| {
                let dns = pod_dns(&pod(spec.clone()), cluster, &node);
                assert_eq!(
                    (&*dns.servers, &*dns.searches, &*dns.options),
                    (
                        &*servers.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
                        &*searches.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
                        &*options.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
                    ),
                    "{spec}"
                );
            };
        let with = cluster(Some("10.96.0.10"));
        let names = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"];
        check(json!({}), &with, &["10.96.0.10"], &names, &["ndots:5"]);
        check(json!({}), &cluster(None), &["192.0.2.53"], &["example.com"], &["edns0", "timeout:1"]);
        check(
            json!({"hostNetwork": true}),
            &with,
            &["192.0.2.53"],
            &["example.com"],
            &["edns0", "timeout:1"],
        );
        check(
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &with,
            &["10.96.0.10"],
            &names,
            &["ndots:5"],
        );
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4", "1.2.3.4"], "searches": ["a"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &with,
            &["1.2.3.4"],
            &["a"],
            &["ndots:2", "edns0"],
        );
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
            &with,
            &["10.96.0.10"],
            &names,
            &["ndots:2"],
        );
    }

    #[test]
    fn hosts() {
        let ips = ["10.1.0.2".parse().unwrap()];
        let aliases = json!([{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]);
        let text =
            hosts_file(&pod(json!({"hostAliases": aliases})), &ips, &cluster(None), Some("10.96.0.1"), "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n"), "{text}");
        assert!(text.contains("\n10.1.0.2\tp\n"), "{text}");
        assert!(text.contains("\n10.96.0.1\tkubernetes.default.svc.cluster.local kubernetes.default.svc kubernetes.default\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        let text = hosts_file(
            &pod(json!({"subdomain": "sub"})),
            &ips,
            &cluster(Some("10.96.0.10")),
            Some("10.96.0.1"),
            "",
        );
        assert!(text.ends_with("10.1.0.2\tp.sub.ns.svc.cluster.local\tp\n"), "{text}");
        let text = hosts_file(
            &pod(json!({"hostNetwork": true})),
            &ips,
            &cluster(None),
            Some("10.96.0.1"),
            "9.9.9.9\tnode\n",
        );
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n9.9.9.9\tnode\n");
    }
}
