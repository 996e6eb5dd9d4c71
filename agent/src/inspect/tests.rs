//! Lines as they are printed.

use pagurus_agent_core::services::plan::Flags;
use pagurus_ebpf_abi::{Address, Port};

use super::*;

fn v4(a: u8) -> Address {
    Address::from_v4_word(u32::from_ne_bytes([10, 0, 0, a]))
}

fn tuple() -> FlowTuple {
    FlowTuple {
        source: v4(1),
        destination: v4(2),
        source_port: Port::new(40_000),
        destination_port: Port::new(80),
        protocol: 6,
        reserved: [0; 3],
    }
}

#[test]
fn connections() {
    let state = FlowState {
        source: v4(9),
        destination: v4(3),
        source_port: Port::new(2000),
        destination_port: Port::new(8080),
        last: 0,
        flags: FLOW_SNAT,
        backend: 7,
        service: 1,
        since: 0,
    };
    let connection = Connection { tuple: tuple(), state, answered: None };
    let line = connection.line("ns/web");
    assert!(
        line.starts_with("TCP  10.0.0.1:40000 -> 10.0.0.2:80 => 10.0.0.9:2000 -> 10.0.0.3:8080  snat ns/web"),
        "{line}"
    );
    assert!(line.ends_with(", one-way"), "{line}");
    let shown = connection.json("ns/web");
    assert_eq!((shown["backend"].as_u64(), shown["answered"].as_bool()), (Some(7), Some(false)));
}

#[test]
fn events() {
    let event =
        DropEvent { time: 5_000_000_001_000, tuple: tuple(), reason: 2, ifindex: 3, service: 1, length: 60 };
    let line = event_line(&event, "ns/web");
    assert_eq!(
        line,
        "5000.000001 TCP  10.0.0.1:40000 -> 10.0.0.2:80 60 bytes from device 3: source_range ns/web"
    );
    assert_eq!(event_json(&DropEvent { reason: 99, ..event }, "")["reason"], "99");
}

#[test]
fn words_of_frontends() {
    assert_eq!(services::words(Flags::NONE), Vec::<&str>::new());
    assert_eq!(services::words(Flags::EXTERNAL | Flags::DSR), ["external", "dsr"]);
    assert!(protocol("udp").is_ok() && protocol("icmp").is_err() && protocol("").is_err());
}
