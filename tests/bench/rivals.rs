//! The rules that kube-proxy makes, in both of its modes, for IPv4: the same tables, chains, maps and rules in the same order, so that
//! what is compared with is the rival and not a simpler thing.
//!
//! Must not know: what is measured.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use pagurus_tests::topology::Host;

/// One Service port.
pub struct Service {
    /// Its number, which makes its names.
    pub number: u32,
    /// The ClusterIP and port.
    pub address: SocketAddrV4,
    /// Its NodePort, if it has one.
    pub node_port: Option<u16>,
    /// Its endpoints.
    pub endpoints: Vec<SocketAddrV4>,
}

/// The cluster's pods: everybody else is masqueraded.
const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// The range of ClusterIPs.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
/// Marks what is to be masqueraded.
const MARK: &str = "0x00004000";

/// A Service address of a number: from 10.100.0.0 on, beside what tests choose by hand.
pub fn service_address(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(0x0a64_0000 + number), 80)
}

/// So many letters and digits that name a thing, as the hashes in kube-proxy's names look.
fn hash(number: u64, length: usize) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        state ^= state >> 29;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        DIGITS[(state >> 59) as usize] as char
    };
    (0..length).map(letter).collect()
}

/// A number for each endpoint of each Service.
fn endpoint_number(service: &Service, place: usize) -> u64 {
    (u64::from(service.number) << 20) + place as u64 + 1
}

/// Text for `nft -f` as kube-proxy writes it for `--proxy-mode=nftables`.
pub fn nftables(services: &[Service], node: Ipv4Addr) -> String {
    let mut text = format!(
        "table ip kube-proxy {{
\tcomment \"rules for kube-proxy\";
\tset cluster-ips {{ type ipv4_addr; comment \"Active ClusterIPs\"; }}
\tset nodeport-ips {{ type ipv4_addr; comment \"IPs that accept NodePort traffic\"; elements = {{ {node} }}; }}
\tmap no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; comment \"vmap to drop or reject packets to service nodeports with no endpoints\"; }}
\tmap no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; comment \"vmap to drop or reject packets to services with no endpoints\"; }}
\tmap firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; comment \"destinations that are subject to LoadBalancerSourceRanges\"; }}
\tmap service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; comment \"ClusterIP, ExternalIP and LoadBalancer IP traffic\"; }}
\tmap service-nodeports {{ type inet_proto . inet_service : verdict; comment \"NodePort traffic\"; }}
\tchain mark-for-masquerade {{ mark set mark | {MARK}; }}
\tchain masquerading {{
\t\tmark & {MARK} == 0 return
\t\tmark set mark ^ {MARK}
\t\tmasquerade fully-random
\t}}
\tchain cluster-ips-check {{
\t\tip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"
\t\tip daddr {SERVICE_CIDR} drop comment \"Drop traffic to unallocated ClusterIPs\"
\t}}
\tchain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
\tchain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
\tchain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
\tchain reject-chain {{ reject; }}
\tchain services {{
\t\tip daddr . meta l4proto . th dport vmap @service-ips
\t\tip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
\t}}
\tchain filter-prerouting {{ type filter hook prerouting priority dstnat - 10; ct state new jump firewall-check; }}
\tchain filter-input {{ type filter hook input priority -110; ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }}
\tchain filter-forward {{ type filter hook forward priority -110; ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}
\tchain filter-output {{ type filter hook output priority -110; ct state new jump service-endpoints-check; ct state new jump firewall-check; }}
\tchain filter-output-post-dnat {{ type filter hook output priority -90; ct state new jump cluster-ips-check; }}
\tchain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
\tchain nat-output {{ type nat hook output priority -100; jump services; }}
\tchain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
}}
"
    );
    // Errors of writing to a String do not exist.
    for service in services {
        let _ = nftables_service(&mut text, service);
    }
    text
}

fn nftables_service(text: &mut String, service: &Service) -> std::fmt::Result {
    let number = service.number;
    let (ip, port) = (service.address.ip(), service.address.port());
    let name = format!("{}-bench/service-{number}/tcp/http", hash(number.into(), 8));
    let endpoint = |place: usize, at: &SocketAddrV4| {
        let hash = hash(endpoint_number(service, place), 8);
        format!("endpoint-{hash}-bench/service-{number}/tcp/http__{}/{}", at.ip(), at.port())
    };
    for (place, at) in service.endpoints.iter().enumerate() {
        writeln!(text, "add chain ip kube-proxy {}", endpoint(place, at))?;
        writeln!(
            text,
            "add rule ip kube-proxy {} ip saddr {} jump mark-for-masquerade",
            endpoint(place, at),
            at.ip()
        )?;
        writeln!(text, "add rule ip kube-proxy {} meta l4proto tcp dnat to {at}", endpoint(place, at))?;
    }
    writeln!(text, "add chain ip kube-proxy service-{name}")?;
    writeln!(
        text,
        "add rule ip kube-proxy service-{name} ip daddr {ip} tcp dport {port} ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade"
    )?;
    write!(
        text,
        "add rule ip kube-proxy service-{name} numgen random mod {} vmap {{ ",
        service.endpoints.len()
    )?;
    for (place, at) in service.endpoints.iter().enumerate() {
        write!(text, "{}{place} : goto {}", if place > 0 { ", " } else { "" }, endpoint(place, at))?;
    }
    writeln!(text, " }}")?;
    writeln!(text, "add element ip kube-proxy cluster-ips {{ {ip} }}")?;
    writeln!(text, "add element ip kube-proxy service-ips {{ {ip} . tcp . {port} : goto service-{name} }}")?;
    if let Some(node_port) = service.node_port {
        writeln!(text, "add chain ip kube-proxy external-{name}")?;
        writeln!(text, "add rule ip kube-proxy external-{name} jump mark-for-masquerade")?;
        writeln!(text, "add rule ip kube-proxy external-{name} goto service-{name}")?;
        writeln!(
            text,
            "add element ip kube-proxy service-nodeports {{ tcp . {node_port} : goto external-{name} }}"
        )?;
    }
    Ok(())
}

/// Text for `iptables-restore --noflush` as kube-proxy writes it for `--proxy-mode=iptables`, with the jumps that it makes once.
pub fn iptables(services: &[Service]) -> String {
    // Accounting of what is dropped as invalid is left out: it costs where it matches, and here it never does.
    let mut text = String::from(
        "*filter
:KUBE-NODEPORTS - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
",
    );
    let mut rules = String::new();
    for service in services {
        let _ = iptables_service(&mut text, &mut rules, service);
    }
    text.push_str(&rules);
    text.push_str(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
         -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n",
    );
    text
}

fn iptables_service(chains: &mut String, text: &mut String, service: &Service) -> std::fmt::Result {
    let number = service.number;
    let (ip, port) = (service.address.ip(), service.address.port());
    let (name, hash_of) = (format!("bench/service-{number}:http"), hash(number.into(), 16));
    writeln!(chains, ":KUBE-SVC-{hash_of} - [0:0]")?;
    writeln!(
        text,
        "-A KUBE-SERVICES -m comment --comment \"{name} cluster IP\" -m tcp -p tcp -d {ip} --dport {port} -j KUBE-SVC-{hash_of}"
    )?;
    writeln!(
        text,
        "-A KUBE-SVC-{hash_of} -m comment --comment \"{name} cluster IP\" -m tcp -p tcp -d {ip} --dport {port} ! -s {CLUSTER_CIDR} -j KUBE-MARK-MASQ"
    )?;
    if let Some(node_port) = service.node_port {
        writeln!(chains, ":KUBE-EXT-{hash_of} - [0:0]")?;
        writeln!(
            text,
            "-A KUBE-NODEPORTS -m comment --comment {name} -m tcp -p tcp --dport {node_port} -j KUBE-EXT-{hash_of}"
        )?;
        writeln!(
            text,
            "-A KUBE-EXT-{hash_of} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ"
        )?;
        writeln!(text, "-A KUBE-EXT-{hash_of} -j KUBE-SVC-{hash_of}")?;
    }
    let count = service.endpoints.len();
    for (place, at) in service.endpoints.iter().enumerate() {
        let endpoint = hash(endpoint_number(service, place), 16);
        writeln!(chains, ":KUBE-SEP-{endpoint} - [0:0]")?;
        write!(text, "-A KUBE-SVC-{hash_of} -m comment --comment \"{name} -> {at}\" ")?;
        if place + 1 < count {
            let share = 1.0 / (count - place) as f64;
            write!(text, "-m statistic --mode random --probability {share:.10} ")?;
        }
        writeln!(text, "-j KUBE-SEP-{endpoint}")?;
        writeln!(
            text,
            "-A KUBE-SEP-{endpoint} -m comment --comment {name} -s {} -j KUBE-MARK-MASQ",
            at.ip()
        )?;
        writeln!(
            text,
            "-A KUBE-SEP-{endpoint} -m comment --comment {name} -m tcp -p tcp -j DNAT --to-destination {at}"
        )?;
    }
    Ok(())
}

/// Gives the rules of a mode to the kernel, in a host's namespace.
///
/// # Errors
/// What the program said.
pub fn install(host: &Host, program: &str, arguments: &[&str], rules: &str) -> Result<()> {
    host.run(|| {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        child.stdin.take().context("its input")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    })
}

/// As [`install`], by the mode's program.
///
/// # Errors
/// What the program said.
pub fn install_nftables(host: &Host, services: &[Service], node: Ipv4Addr) -> Result<()> {
    install(host, "nft", &["-f", "-"], &nftables(services, node))
}

/// As [`install`], by the mode's program.
///
/// # Errors
/// What the program said.
pub fn install_iptables(host: &Host, services: &[Service]) -> Result<()> {
    install(host, "iptables-nft-restore", &["-w", "5", "--noflush", "--counters"], &iptables(services))
}
