//! The socket-address context: reading and writing the remote address by family.
//!
//! Must not know: services.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use pagurus_ebpf_abi::{Address, Port};

/// `ECONNREFUSED` on every architecture that has BPF.
const CONNECTION_REFUSED: i32 = 111;

/// What a program tells the kernel; every program has exactly one.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Verdict(i32);

impl Verdict {
    /// The call goes on, with the address as it now is.
    pub(crate) const PASS: Self = Self(1);

    /// The call fails with "connection refused". Not for receive and getpeername.
    #[inline(always)]
    pub(crate) fn refuse() -> Self {
        // SAFETY: plain helper; allowed for connect and sendmsg.
        unsafe { bpf_set_retval(-CONNECTION_REFUSED) };
        Self(0)
    }

    /// The program's return value.
    #[inline(always)]
    pub(crate) const fn code(self) -> i32 {
        self.0
    }
}

/// How a family lies in the context.
pub(crate) trait Family {
    /// The remote address.
    fn address(ctx: &SockAddrContext) -> Address;
    /// Replaces the remote address; a v4 family takes only v4-mapped addresses.
    fn set_address(ctx: &SockAddrContext, address: &Address);
}

/// The `*4` hooks.
pub(crate) enum V4 {}

/// The `*6` hooks.
pub(crate) enum V6 {}

impl Family for V4 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the kernel hands a valid context; this field may be read in every `*4` hook.
        Address::from_v4_word(unsafe { (*ctx.sock_addr).user_ip4 })
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: &Address) {
        // SAFETY: the kernel hands a valid context; this field may be written in every `*4` hook.
        unsafe { (*ctx.sock_addr).user_ip4 = address.v4_word() };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the kernel hands a valid context; these fields may be read in every `*6` hook.
        let words = unsafe {
            let ip = &raw const (*ctx.sock_addr).user_ip6;
            [
                core::ptr::read_volatile(&raw const (*ip)[0]),
                core::ptr::read_volatile(&raw const (*ip)[1]),
                core::ptr::read_volatile(&raw const (*ip)[2]),
                core::ptr::read_volatile(&raw const (*ip)[3]),
            ]
        };
        Address { words }
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: &Address) {
        // SAFETY: the kernel hands a valid context; these fields may be written in every `*6` hook.
        unsafe {
            let ip = &raw mut (*ctx.sock_addr).user_ip6;
            core::ptr::write_volatile(&raw mut (*ip)[0], address.words[0]);
            core::ptr::write_volatile(&raw mut (*ip)[1], address.words[1]);
            core::ptr::write_volatile(&raw mut (*ip)[2], address.words[2]);
            core::ptr::write_volatile(&raw mut (*ip)[3], address.words[3]);
        }
    }
}

/// The remote port.
#[inline(always)]
pub(crate) fn port(ctx: &SockAddrContext) -> Port {
    // SAFETY: the kernel hands a valid context; the port is in the field's first two bytes.
    Port(unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).user_port) } as u16)
}

/// Replaces the remote port.
#[inline(always)]
pub(crate) fn set_port(ctx: &SockAddrContext, port: Port) {
    // SAFETY: the kernel hands a valid context; the field is written whole.
    unsafe { core::ptr::write_volatile(&raw mut (*ctx.sock_addr).user_port, u32::from(port.0)) };
}

/// The socket's IP protocol number, cut to eight bits (which makes an MPTCP socket, 262, a TCP one).
#[inline(always)]
pub(crate) fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: the kernel hands a valid context.
    unsafe { core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) as u8 }
}

/// The kernel's name for the socket, unique while the machine is up.
#[inline(always)]
pub(crate) fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this program type's context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Stands for the client's address: the network namespace of the socket. A pod has one of its own, and everything on the node's
/// network shares the node's.
#[inline(always)]
pub(crate) fn client(ctx: &SockAddrContext) -> Address {
    // SAFETY: the helper takes this program type's context.
    Address::of_namespace(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}
