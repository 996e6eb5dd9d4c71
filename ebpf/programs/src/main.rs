//! The BPF programs: load balancing of sockets at a node's cgroup, and of packets at pods' devices and uplinks.
//!
//! Entry points only dispatch; each has one exit. Must not know: Kubernetes, pinning, who fills the maps.
//! Addresses of both families travel as 128-bit addresses (see `pagurus-ebpf-abi`), so all but the access to the
//! context is one code path.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "the attribute macros make the exported functions from these"
)]

mod affinity;
mod balance;
mod clock;
mod conntrack;
mod context;
mod deliver;
mod drop;
mod flow;
mod maps;
mod nat;
mod packet;
mod panic;
mod path;
mod service;
mod socket;
mod stages;
mod table;
mod work;
mod xdp;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};

use context::{V4, V6};
use packet::{Hook, Packet as _, Skb, Xdp};

/// `connect(2)` to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    socket::connect::<V4>(&ctx).code()
}

/// `connect(2)` to an IPv6 address, v4-mapped ones included.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    socket::connect::<V6>(&ctx).code()
}

/// A datagram sent to an explicit IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::send::<V4>(&ctx).code()
}

/// A datagram sent to an explicit IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    socket::send::<V6>(&ctx).code()
}

/// A datagram received from an IPv4 address.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::receive::<V4>(&ctx).code()
}

/// A datagram received from an IPv6 address, v4-mapped ones included.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::receive::<V6>(&ctx).code()
}

/// `getpeername(2)` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::peer_name::<V4>(&ctx).code()
}

/// `getpeername(2)` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::peer_name::<V6>(&ctx).code()
}

/// Packets that pods send.
#[classifier]
pub fn from_pod(ctx: TcContext) -> i32 {
    Skb::code(path::run(&Skb::new(ctx.skb.skb, Hook::FromPod)))
}

/// Packets to pods from the kernel's forwarding or the node itself.
#[classifier]
pub fn to_pod(ctx: TcContext) -> i32 {
    Skb::code(path::run(&Skb::new(ctx.skb.skb, Hook::ToPod)))
}

/// Packets from outside.
#[classifier]
pub fn from_outside(ctx: TcContext) -> i32 {
    Skb::code(path::run(&Skb::new(ctx.skb.skb, Hook::FromOutside)))
}

/// Packets to the outside.
#[classifier]
pub fn to_outside(ctx: TcContext) -> i32 {
    Skb::code(path::run(&Skb::new(ctx.skb.skb, Hook::ToOutside)))
}

/// Packets from outside, early.
#[xdp]
pub fn xdp_outside(ctx: XdpContext) -> u32 {
    Xdp::code(crate::xdp::outside(&Xdp::new(ctx.ctx))) as u32
}
