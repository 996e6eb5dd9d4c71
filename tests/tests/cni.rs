//! Pod networking for real: ADD, CHECK, DEL, GC and restarts in network namespaces, with traffic between pods, to and
//! from the node, and between two nodes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pagurus_cni::commands::Settings;
use pagurus_cni::netlink::{Netlink as _, Route, Socket};
use pagurus_cni::netns::NetNs;
use pagurus_cni::request::Call;
use pagurus_cni::routes::Hop;
use pagurus_cni::spec::{self, Error};
use pagurus_cni::{Network, routes, sysctl};
use pagurus_tests::eventually::eventually;
use pagurus_tests::netns::{ip, isolated};
use serde_json::{Value, json};

const RANGES: [&str; 2] = ["10.244.0.0/24", "fd10:244::/64"];
const NODE: [&str; 2] = ["192.168.77.1", "fd77::1"];

/// A node with its pod network; the node's namespace is the test's.
struct Node {
    network: Network,
    folder: PathBuf,
}

fn parse<T: std::str::FromStr>(texts: &[&str]) -> Result<Vec<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    Ok(texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

impl Node {
    fn start() -> Result<Self> {
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"])?;
        for (address, length) in [(NODE[0], 24), (NODE[1], 64)] {
            ip(&["addr", "add", &format!("{address}/{length}"), "dev", "up0", "nodad"])?;
        }
        ip(&["link", "set", "up0", "mtu", "1450", "up"])?;
        ip(&["link", "set", "up1", "up"])?;
        // The kernel finds out a moment later, up to a second, that the link works, and adds routes then.
        eventually("the uplink's own routes are there", Duration::from_secs(5), || {
            let own = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]);
            let count = all_routes()?.iter().filter(|route| route.destination.addr() == own).count();
            Ok((count == 2).then_some(()))
        })?;
        sysctl::route_packets()?;
        let folder = PathBuf::from("/run/netns/attachments");
        let network = Network::open(&folder)?;
        let node = Self { network, folder };
        node.configure()?;
        Ok(node)
    }

    fn configure(&self) -> Result<()> {
        let node_ips = parse(&NODE)?;
        let mtu = routes::mtu(&mut Socket::open()?, &node_ips)?;
        self.network.set(Settings { ranges: parse(&RANGES)?, node_ips, mtu });
        Ok(())
    }

    /// The agent starts again.
    fn restart(&mut self) -> Result<()> {
        self.network = Network::open(&self.folder)?;
        self.configure()?;
        let errors = self.network.reconcile();
        ensure!(errors.is_empty(), "{errors:?}");
        Ok(())
    }
}

/// A pod's namespace, as a runtime makes it.
struct Pod {
    name: String,
    netns: NetNs,
    result: Option<Value>,
}

impl Pod {
    fn new(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let path = format!("/run/netns/{name}");
        let netns = NetNs::open(Path::new(&path))?.context("the namespace just made")?;
        Ok(Self { name: name.to_owned(), netns, result: None })
    }

    fn call(&self, command: &str, version: &str) -> Call {
        let mut config = json!({ "cniVersion": version, "name": "pagurus", "type": "pagurus-cni" });
        if let Some(result) = &self.result {
            config["prevResult"] = result.clone();
        }
        Call {
            command: command.into(),
            container_id: format!("{}-sandbox", self.name),
            netns: format!("/run/netns/{}", self.name),
            ifname: "eth0".into(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={}", self.name),
            config,
        }
    }

    fn add(&mut self, node: &Node) -> Result<Vec<IpAddr>> {
        self.result = node.network.handle(&self.call("ADD", "1.0.0"))?;
        self.ips()
    }

    fn ips(&self) -> Result<Vec<IpAddr>> {
        let result = self.result.as_ref().context("no result")?;
        let ips = result["ips"].as_array().context("no ips")?;
        ips.iter()
            .map(|entry| {
                let address = entry["address"].as_str().context("no address")?;
                Ok(address.parse::<ipnet_text::Net>()?.0)
            })
            .collect()
    }
}

/// `10.0.0.1/32` as the result has it.
mod ipnet_text {
    use std::net::IpAddr;

    pub(super) struct Net(pub(super) IpAddr);

    impl std::str::FromStr for Net {
        type Err = std::net::AddrParseError;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            text.split('/').next().unwrap_or_default().parse().map(Self)
        }
    }
}

/// A TCP server in a namespace that tells each client the client's address.
fn serve(netns: Option<&NetNs>, at: IpAddr) -> Result<u16> {
    let bind = move || TcpListener::bind(SocketAddr::new(at, 0));
    let listener = match netns {
        Some(netns) => netns.run(bind)??,
        None => bind()?,
    };
    let port = listener.local_addr()?.port();
    thread::spawn(move || -> std::io::Result<()> {
        loop {
            let (mut stream, from) = listener.accept()?;
            std::io::Write::write_all(&mut stream, from.ip().to_string().as_bytes())?;
        }
    });
    Ok(port)
}

/// Connects from a namespace; the address the server saw.
fn connect(netns: Option<&NetNs>, to: SocketAddr) -> Result<IpAddr> {
    let connect = move || -> Result<IpAddr> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))
            .with_context(|| format!("connect to {to}"))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text)?;
        Ok(text.parse()?)
    };
    match netns {
        Some(netns) => netns.run(connect)?,
        None => connect(),
    }
}

/// Both directions, both families, without translation of addresses.
fn reach(from: &Pod, to: &Pod) -> Result<()> {
    for (source, target) in from.ips()?.into_iter().zip(to.ips()?) {
        let port = serve(Some(&to.netns), target)?;
        let seen = connect(Some(&from.netns), SocketAddr::new(target, port))?;
        ensure!(seen == source, "{target} saw {seen} and not {source}");
    }
    Ok(())
}

fn links() -> Result<Vec<String>> {
    let links = Socket::open()?.links()?;
    Ok(links.into_iter().map(|link| link.name).filter(|name| name.starts_with("pgr")).collect())
}

/// The routes of the main table, in an order of our own.
fn all_routes() -> Result<Vec<Route>> {
    let mut routes = Socket::open()?.routes()?;
    routes.sort_by_key(|route| format!("{route:?}"));
    Ok(routes)
}

fn code(result: Result<Option<Value>, Error>) -> Option<u32> {
    result.err().map(|error| error.code)
}

#[test]
fn pods_reach_each_other_and_the_node() {
    isolated("cni::pods_reach_each_other_and_the_node", |_| {
        let node = Node::start()?;
        let (mut a, mut b) = (Pod::new("a")?, Pod::new("b")?);
        ensure!(a.add(&node)? == parse::<IpAddr>(&["10.244.0.1", "fd10:244::1"])?);
        b.add(&node)?;
        reach(&a, &b)?;
        reach(&b, &a)?;
        for (index, target) in a.ips()?.into_iter().enumerate() {
            // The node reaches the pod from its own address, and the pod the node.
            let port = serve(Some(&a.netns), target)?;
            let seen = connect(None, SocketAddr::new(target, port))?;
            ensure!(seen.to_string() == NODE[index], "the pod saw {seen}");
            let here: IpAddr = NODE[index].parse()?;
            let port = serve(None, here)?;
            ensure!(connect(Some(&a.netns), SocketAddr::new(here, port))? == target);
        }
        // The pod has the node's MTU.
        let mtu = a
            .netns
            .run(|| -> Result<u32> { Ok(Socket::open()?.link("eth0")?.context("no eth0")?.mtu) })??;
        ensure!(mtu == 1450, "mtu {mtu}");
        Ok(())
    });
}

#[test]
fn the_mtu_of_pods_follows_that_of_the_node() {
    isolated("cni::the_mtu_of_pods_follows_that_of_the_node", |_| {
        let node = Node::start()?;
        let (mut a, mut b) = (Pod::new("a")?, Pod::new("b")?);
        a.add(&node)?;
        b.add(&node)?;
        for mtu in [1400, 1500] {
            node.network.set(Settings { mtu, ..node.network.settings() });
            let errors = node.network.reconcile();
            ensure!(errors.is_empty(), "{errors:?}");
            for pod in [&a, &b] {
                let inside = || -> Result<u32> { Ok(Socket::open()?.link("eth0")?.context("no eth0")?.mtu) };
                ensure!(pod.netns.run(inside)?? == mtu);
                node.network.handle(&pod.call("CHECK", "1.0.0"))?;
            }
            for link in links()? {
                ensure!(Socket::open()?.link(&link)?.is_some_and(|link| link.mtu == mtu), "{link}");
            }
            reach(&a, &b)?;
        }
        Ok(())
    });
}

#[test]
fn commands_can_be_repeated_and_leave_nothing() {
    isolated("cni::commands_can_be_repeated_and_leave_nothing", |_| {
        let node = Node::start()?;
        let before = all_routes()?;
        let mut pod = Pod::new("a")?;
        // Undoing what was never done.
        node.network.handle(&pod.call("DEL", "1.0.0"))?;
        ensure!(code(node.network.handle(&pod.call("CHECK", "1.0.0"))) == Some(spec::CHECK_FAILED));
        let ips = pod.add(&node)?;
        let link = links()?;
        ensure!(pod.add(&node)? == ips && links()? == link, "the second ADD made something else");
        node.network.handle(&pod.call("CHECK", "1.0.0"))?;
        // A route that is lost is noticed, and ADD or the reconciliation bring it back.
        ip(&["route", "del", &ips[0].to_string()])?;
        ensure!(code(node.network.handle(&pod.call("CHECK", "1.0.0"))) == Some(spec::CHECK_FAILED));
        ensure!(node.network.reconcile().is_empty());
        node.network.handle(&pod.call("CHECK", "1.0.0"))?;
        // So is a device that somebody removed in the pod.
        pod.netns.run(|| Socket::open()?.delete_link("eth0"))??;
        ensure!(code(node.network.handle(&pod.call("CHECK", "1.0.0"))) == Some(spec::CHECK_FAILED));
        ensure!(pod.add(&node)? == ips);
        node.network.handle(&pod.call("CHECK", "1.0.0"))?;
        for _ in 0..2 {
            node.network.handle(&pod.call("DEL", "1.0.0"))?;
            ensure!(links()?.is_empty() && node.network.attachments().is_empty());
            let after = all_routes()?;
            ensure!(after == before, "routes are left: {after:?}, before: {before:?}");
            ensure!(fs::read_dir(&node.folder)?.next().is_none(), "a file is left");
        }
        let inside = pod.netns.run(|| Socket::open()?.link("eth0"))??;
        ensure!(inside.is_none(), "eth0 is left");
        // DEL after the namespace has gone, and without one.
        pod.add(&node)?;
        ip(&["netns", "del", "a"])?;
        let mut del = pod.call("DEL", "1.0.0");
        del.netns.clear();
        node.network.handle(&del)?;
        ensure!(links()?.is_empty() && node.network.attachments().is_empty());
        ensure!(code(node.network.handle(&pod.call("ADD", "1.0.0"))) == Some(spec::INVALID_ENVIRONMENT));
        Ok(())
    });
}

#[test]
fn a_restart_keeps_addresses_and_drops_what_has_gone() {
    isolated("cni::a_restart_keeps_addresses_and_drops_what_has_gone", |_| {
        let mut node = Node::start()?;
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            let mut pod = Pod::new(name)?;
            pod.add(&node)?;
            pods.push(pod);
        }
        // While the agent is down a namespace goes without a DEL, and somebody removes a route.
        ip(&["netns", "del", "c"])?;
        drop(pods.pop());
        ip(&["route", "del", "10.244.0.2"])?;
        node.restart()?;
        let left: Vec<String> =
            node.network.attachments().into_iter().map(|attachment| attachment.pod).collect();
        ensure!(left == ["test/a", "test/b"], "{left:?}");
        reach(&pods[0], &pods[1])?;
        let mut other = Pod::new("d")?;
        let ips = other.add(&node)?;
        ensure!(pods.iter().all(|pod| pod.ips().is_ok_and(|taken| taken[0] != ips[0])));
        // A record that is lost does not make its address free.
        fs::write(node.folder.join("a-sandbox@eth0.json"), b"damaged")?;
        node.restart()?;
        ensure!(node.network.damaged().len() == 1);
        for number in 0..251 {
            let mut pod = Pod::new(&format!("x{number}"))?;
            let ips = pod.add(&node)?;
            ensure!(ips[0] != pods[0].ips()?[0], "the address of a was given again");
        }
        let full = Pod::new("full")?;
        let result = node.network.handle(&full.call("ADD", "1.0.0"));
        ensure!(code(result.clone()) == Some(spec::TRY_AGAIN_LATER), "{result:?}");
        Ok(())
    });
}

#[test]
fn gc_and_status() {
    isolated("cni::gc_and_status", |_| {
        let node = Node::start()?;
        let (mut a, mut b) = (Pod::new("a")?, Pod::new("b")?);
        a.add(&node)?;
        b.add(&node)?;
        let mut gc = a.call("GC", "1.1.0");
        ensure!(code(node.network.handle(&gc)) == Some(spec::INVALID_CONFIGURATION));
        gc.config["cni.dev/valid-attachments"] = json!([{ "containerID": "a-sandbox", "ifname": "eth0" }]);
        node.network.handle(&gc)?;
        ensure!(links()?.len() == 1);
        node.network.handle(&a.call("CHECK", "1.1.0"))?;
        node.network.handle(&a.call("STATUS", "1.1.0"))?;
        node.network.set(Settings::default());
        ensure!(code(node.network.handle(&a.call("STATUS", "1.1.0"))) == Some(spec::NOT_AVAILABLE));
        ensure!(code(node.network.handle(&b.call("ADD", "1.1.0"))) == Some(spec::TRY_AGAIN_LATER));
        Ok(())
    });
}

#[test]
fn many_pods_at_once() {
    isolated("cni::many_pods_at_once", |_| {
        let node = Node::start()?;
        let pods: Vec<Pod> = (0..40).map(|number| Pod::new(&format!("p{number}"))).collect::<Result<_>>()?;
        let results: Vec<Result<Option<Value>, Error>> = thread::scope(|scope| {
            let all: Vec<_> = pods
                .iter()
                .map(|pod| scope.spawn(|| node.network.handle(&pod.call("ADD", "1.0.0"))))
                .collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let mut seen = BTreeMap::new();
        for result in results {
            let result = result?.context("no result")?;
            let address = result["ips"][0]["address"].as_str().context("no address")?.to_owned();
            *seen.entry(address).or_insert(0) += 1;
        }
        ensure!(seen.len() == 40, "addresses were given twice: {seen:?}");
        thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| node.network.handle(&pod.call("DEL", "1.0.0")));
            }
        });
        ensure!(links()?.is_empty() && node.network.attachments().is_empty());
        Ok(())
    });
}

#[test]
fn routes_lead_to_the_pods_of_other_nodes() {
    isolated("cni::routes_lead_to_the_pods_of_other_nodes", |_| {
        let node = Node::start()?;
        let mut pod = Pod::new("a")?;
        pod.add(&node)?;
        // Another node at the other end of the uplink, with a pod address on it.
        let other = Pod::new("other")?;
        ip(&["link", "set", "up1", "netns", "other"])?;
        for address in ["192.168.77.2/24", "fd77::2/64", "10.244.9.5/32", "fd10:244:9::5/128"] {
            ip(&["-n", "other", "addr", "add", address, "dev", "up1", "nodad"])?;
        }
        ip(&["-n", "other", "link", "set", "lo", "up"])?;
        ip(&["-n", "other", "link", "set", "up1", "up"])?;
        for (range, via) in [("10.244.0.0/24", NODE[0]), ("fd10:244::/64", NODE[1])] {
            ip(&["-n", "other", "route", "add", range, "via", via])?;
        }
        let wanted: BTreeMap<_, _> = [("10.244.9.0/24", "192.168.77.2"), ("fd10:244:9::/64", "fd77::2")]
            .into_iter()
            .map(|(range, via)| Ok((range.parse()?, Hop::from(via.parse::<IpAddr>()?))))
            .collect::<Result<_>>()?;
        let mut netlink = Socket::open()?;
        for pass in 0..2 {
            let plan = routes::plan(&wanted, &netlink.routes()?, None);
            ensure!(plan.set.len() == if pass == 0 { 2 } else { 0 } && plan.delete.is_empty(), "{plan:?}");
            let errors = routes::apply(&plan, &mut netlink);
            ensure!(errors.is_empty(), "{errors:?}");
        }
        for (source, target) in pod.ips()?.into_iter().zip(["10.244.9.5", "fd10:244:9::5"]) {
            let target: IpAddr = target.parse()?;
            let port = serve(Some(&other.netns), target)?;
            let to = SocketAddr::new(target, port);
            let seen = eventually("the other node's pod answers", Duration::from_secs(10), || {
                connect(Some(&pod.netns), to).map(Some)
            })?;
            ensure!(seen == source, "the other node saw {seen}");
        }
        // The node goes: its routes go, the pod's own stay.
        let plan = routes::plan(&BTreeMap::new(), &netlink.routes()?, None);
        ensure!(plan.delete.len() == 2 && plan.set.is_empty(), "{plan:?}");
        ensure!(routes::apply(&plan, &mut netlink).is_empty());
        node.network.handle(&pod.call("CHECK", "1.0.0"))?;
        // A next hop that is not on a link of ours is an error, not a silence.
        let far = BTreeMap::from([("10.244.8.0/24".parse()?, Hop::from("203.0.113.9".parse::<IpAddr>()?))]);
        let plan = routes::plan(&far, &netlink.routes()?, None);
        ensure!(routes::apply(&plan, &mut netlink).len() == 1);
        ensure!(UdpSocket::bind("0.0.0.0:0")?.connect("10.244.9.5:9").is_err(), "the route is still there");
        Ok(())
    });
}
