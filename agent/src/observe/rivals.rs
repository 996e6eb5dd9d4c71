//! Whether kube-proxy runs on this node, or has left its rules behind: both balance the same Services, and packets that ours
//! would leave alone may meet theirs.
//!
//! Reads, changes nothing. Must not know: who is told.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::observe::netlink::{Netlink, attributes, text};

/// The subsystem nf_tables, and its requests for chains and tables.
const GET_TABLES: u16 = 10 << 8 | 1;
const GET_CHAINS: u16 = 10 << 8 | 4;
/// `struct nfgenmsg`: any family.
const ANY_FAMILY: [u8; 4] = [0; 4];
const TABLE_NAME: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// kube-proxy's table in nftables mode, and how its chains begin in iptables mode.
const OWN_TABLE: &str = "kube-proxy";
const OWN_CHAIN: &str = "KUBE-SERVICES";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// Process ids of kube-proxy, as far as they can be seen from here.
    pub processes: Vec<u32>,
    /// It has a table of nftables.
    pub nftables: bool,
    /// It has chains of iptables over nftables.
    pub iptables: bool,
    /// It has chains of the old iptables.
    pub iptables_legacy: bool,
}

impl Rivals {
    /// What to do about it; none if there is nothing.
    pub fn advice(&self) -> Option<String> {
        if !self.processes.is_empty() {
            return Some(format!(
                "kube-proxy runs on this node (process {}): two programs balance the same Services. Remove it, such as by `kubectl -n \
                 kube-system delete daemonset kube-proxy`; its rules are told apart then",
                self.processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        let mut remedies = Vec::new();
        if self.nftables {
            remedies.push("`nft delete table ip kube-proxy; nft delete table ip6 kube-proxy`");
        }
        if self.iptables {
            remedies.push(
                "`iptables-save | grep -v KUBE- | iptables-restore; ip6tables-save | grep -v KUBE- | ip6tables-restore`",
            );
        }
        if self.iptables_legacy {
            remedies.push("`iptables-legacy-save | grep -v KUBE- | iptables-legacy-restore`, and the same with ip6tables");
        }
        if remedies.is_empty() {
            return None;
        }
        Some(format!(
            "rules of kube-proxy are still on this node, and packets may meet them: remove them with `kube-proxy --cleanup`, with {}, or \
             by restarting the node",
            remedies.join(" and ")
        ))
    }
}

/// Looks for it in the network namespace of the calling thread.
pub fn look() -> Rivals {
    let has = |request, name: u16, is_own: &dyn Fn(&str) -> bool| {
        netfilter(request, name).is_ok_and(|names| names.iter().any(|name| is_own(name)))
    };
    Rivals {
        processes: processes(Path::new("/proc")),
        nftables: has(GET_TABLES, TABLE_NAME, &|name| name == OWN_TABLE),
        iptables: has(GET_CHAINS, CHAIN_NAME, &|name| name == OWN_CHAIN),
        iptables_legacy: legacy_chains().unwrap_or(false),
    }
}

/// Processes of that name.
fn processes(proc: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let named = |id: &u32| {
        std::fs::read_to_string(proc.join(id.to_string()).join("comm"))
            .is_ok_and(|name| name.trim() == "kube-proxy")
    };
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
}

/// Names of all tables or chains. A kernel without nf_tables has none.
fn netfilter(request: u16, name: u16) -> io::Result<Vec<String>> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkNetFilter, 0)?;
    let answers = netlink.list(request, &ANY_FAMILY)?;
    let name_of = |body: &[u8]| {
        attributes(body, ANY_FAMILY.len()).find(|(number, _)| *number == name).map(|(_, value)| text(value))
    };
    Ok(answers.iter().filter_map(|answer| name_of(&answer.body)).collect())
}

/// `struct ipt_getinfo`.
#[repr(C)]
struct TableInfo {
    name: [u8; 32],
    hooks: u32,
    entries: [u32; 5],
    underflow: [u32; 5],
    count: u32,
    size: u32,
}

/// Whether the old iptables has kube-proxy's chains. Tables that are not loaded are not looked at, for that would load them.
fn legacy_chains() -> io::Result<bool> {
    const GET_INFO: libc::c_int = 64;
    const GET_ENTRIES: libc::c_int = 65;
    /// Bytes before the entries in `struct ipt_get_entries`.
    const HEAD: usize = 40;
    let loaded = std::fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    if !loaded.lines().any(|name| name == "nat") {
        return Ok(false);
    }
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let ask = |option: libc::c_int, buffer: &mut [u8]| {
        let mut length = libc::socklen_t::try_from(buffer.len()).unwrap_or(0);
        // SAFETY: the buffer is as long as the length says, and the kernel writes no further.
        let result = unsafe {
            libc::getsockopt(
                raw.as_raw_fd(),
                libc::IPPROTO_IP,
                option,
                buffer.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let mut info = [0; size_of::<TableInfo>()];
    info[..3].copy_from_slice(b"nat");
    ask(GET_INFO, &mut info)?;
    let at = offset_of!(TableInfo, size);
    let size = info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let mut entries = vec![0; HEAD + size as usize];
    entries[..3].copy_from_slice(b"nat");
    entries[32..36].copy_from_slice(&size.to_ne_bytes());
    ask(GET_ENTRIES, &mut entries)?;
    Ok(entries.windows(OWN_CHAIN.len()).any(|window| window == OWN_CHAIN.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice() {
        let check = |rivals: Rivals, parts: &[&str]| {
            let advice = rivals.advice().unwrap_or_default();
            assert_eq!(advice.is_empty(), parts.is_empty(), "{advice}");
            assert!(parts.iter().all(|part| advice.contains(part)), "{advice}");
        };
        check(Rivals::default(), &[]);
        check(
            Rivals { processes: vec![7], nftables: true, ..Rivals::default() },
            &["process 7", "delete daemonset"],
        );
        check(Rivals { nftables: true, ..Rivals::default() }, &["nft delete table ip kube-proxy"]);
        check(
            Rivals { iptables: true, iptables_legacy: true, ..Rivals::default() },
            &["iptables-save", "iptables-legacy"],
        );
    }

    #[test]
    fn looks_without_harm() {
        // Whatever this machine has; names that cannot be read are none.
        let _ = look();
        let directory = tempfile::tempdir().expect("temporary directory");
        for (id, name) in [("12", "kube-proxy\n"), ("13", "bash\n"), ("self", "kube-proxy\n")] {
            std::fs::create_dir(directory.path().join(id)).expect("made");
            std::fs::write(directory.path().join(id).join("comm"), name).expect("written");
        }
        assert_eq!(processes(directory.path()), [12]);
    }
}
