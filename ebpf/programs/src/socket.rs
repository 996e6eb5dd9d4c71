//! What each socket hook does, for both families.
//!
//! Must not know: how a backend is chosen (`balance`), how a family lies in the context (`context`).

use aya_ebpf::programs::SockAddrContext;
use pagurus_ebpf_abi::{
    Address, Backend, COUNTER_CONNECT_TCP, COUNTER_CONNECT_UDP, COUNTER_NO_BACKEND, COUNTER_PEERNAME,
    COUNTER_REVERSE_UDP, COUNTER_SEND_UDP, COUNTER_TABLE_FULL, PROTOCOL_TCP, PROTOCOL_UDP, Port, ReverseKey,
    ReverseValue, ServiceKey,
};

use crate::{
    balance::{self, Route},
    context::{self, Family, Verdict},
    maps::{REVERSE, count},
};

/// `connect`: the socket is connected to a backend.
#[inline(always)]
pub(crate) fn connect<F: Family>(ctx: &SockAddrContext) -> Verdict {
    let protocol = context::protocol(ctx);
    let counter = match protocol {
        PROTOCOL_TCP => COUNTER_CONNECT_TCP,
        PROTOCOL_UDP => COUNTER_CONNECT_UDP,
        _ => return Verdict::PASS,
    };
    let key = ServiceKey { address: F::address(ctx), port: context::port(ctx), protocol, reserved: 0 };
    let route = balance::pick(&key, &context::client(ctx));
    if let Route::Elsewhere = route
        && protocol == PROTOCOL_UDP
    {
        forget(ctx, &key);
    }
    translate::<F>(ctx, &key, route, counter)
}

/// `sendto`, `sendmsg` with an address: the datagram goes to a backend, the next one to the same.
#[inline(always)]
pub(crate) fn send<F: Family>(ctx: &SockAddrContext) -> Verdict {
    let protocol = context::protocol(ctx);
    if protocol != PROTOCOL_UDP {
        return Verdict::PASS;
    }
    let key = ServiceKey { address: F::address(ctx), port: context::port(ctx), protocol, reserved: 0 };
    let route = balance::stay(&key, context::cookie(ctx), &context::client(ctx));
    translate::<F>(ctx, &key, route, COUNTER_SEND_UDP)
}

/// `recvfrom`, `recvmsg`: an answer of a backend comes from the Service.
#[inline(always)]
pub(crate) fn receive<F: Family>(ctx: &SockAddrContext) -> Verdict {
    restore::<F>(ctx, PROTOCOL_UDP, COUNTER_REVERSE_UDP)
}

/// `getpeername`: the peer is the Service.
#[inline(always)]
pub(crate) fn peer_name<F: Family>(ctx: &SockAddrContext) -> Verdict {
    restore::<F>(ctx, context::protocol(ctx), COUNTER_PEERNAME)
}

/// Applies a route to the context.
#[inline(always)]
fn translate<F: Family>(ctx: &SockAddrContext, key: &ServiceKey, route: Route, counter: u32) -> Verdict {
    match route {
        Route::Elsewhere => Verdict::PASS,
        Route::Nowhere => {
            count(COUNTER_NO_BACKEND);
            Verdict::refuse()
        }
        Route::To(service, backend) => {
            remember(ctx, key, service, &backend);
            F::set_address(ctx, &backend.address);
            context::set_port(ctx, backend.port);
            count(counter);
            Verdict::PASS
        }
    }
}

/// The entry of this socket and remote address.
#[inline(always)]
fn reverse_key(ctx: &SockAddrContext, address: Address, port: Port, protocol: u8) -> ReverseKey {
    ReverseKey { cookie: context::cookie(ctx), address, port, reserved: 0, protocol: u32::from(protocol) }
}

/// Notes which Service the socket meant; written only if it is not there already.
#[inline(always)]
fn remember(ctx: &SockAddrContext, key: &ServiceKey, service: u32, backend: &Backend) {
    let reverse = reverse_key(ctx, backend.address, backend.port, key.protocol);
    let value = ReverseValue { address: key.address, port: key.port, reserved: 0, service };
    // SAFETY: the value is only compared.
    if unsafe { REVERSE.get(reverse) } == Some(&value) {
        return;
    }
    if REVERSE.insert(reverse, value, 0).is_err() {
        count(COUNTER_TABLE_FULL);
    }
}

/// A socket that now connects to a backend by its own address no longer means the Service.
#[inline(always)]
fn forget(ctx: &SockAddrContext, key: &ServiceKey) {
    let reverse = reverse_key(ctx, key.address, key.port, key.protocol);
    if REVERSE.get_ptr(reverse).is_some() {
        // Failing means that it has gone already.
        let _gone = REVERSE.remove(reverse);
    }
}

/// Turns a backend's address in the context back into the Service's.
#[inline(always)]
fn restore<F: Family>(ctx: &SockAddrContext, protocol: u8, counter: u32) -> Verdict {
    let reverse = reverse_key(ctx, F::address(ctx), context::port(ctx), protocol);
    // SAFETY: the value is copied at once.
    if let Some(value) = unsafe { REVERSE.get(reverse) }.copied() {
        F::set_address(ctx, &value.address);
        context::set_port(ctx, value.port);
        count(counter);
    }
    Verdict::PASS
}
