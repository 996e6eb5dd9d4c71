//! A packet as the device's driver has it: what XDP programs see.
//!
//! Must not know: what is in the packet.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::{bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};

use super::{Hook, Packet, Verdict, bounded, checksum};

/// A packet at a device's ingress.
pub(crate) struct Xdp(XdpContext);

impl Xdp {
    /// The packet of a context.
    #[inline(always)]
    pub(crate) const fn new(context: *mut xdp_md) -> Self {
        Self(XdpContext::new(context))
    }

    /// As [`new`](Self::new), for what is declared for packets of each kind: there is one hook.
    #[inline(always)]
    pub(crate) const fn at(context: *mut xdp_md, _hook: Hook) -> Self {
        Self::new(context)
    }
}

impl Packet for Xdp {
    const XDP: bool = true;

    #[inline(always)]
    fn hook(&self) -> Hook {
        Hook::FromOutside
    }

    #[inline(always)]
    fn context(&self) -> *mut core::ffi::c_void {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn start(&self) -> usize {
        self.0.data()
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.0.data_end()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        (self.0.data_end() - self.0.data()) as u32
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn is_ours(&self) -> bool {
        // The lowest bit of the first byte: broadcast and multicast. What is overheard cannot be told here.
        self.read::<u8>(0).is_some_and(|byte| byte & 1 == 0)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn was_decided(&self) -> bool {
        false
    }

    #[inline(always)]
    fn set_decided(&self) {}

    #[inline(always)]
    fn pull(&self, _length: u32) {}

    #[inline(always)]
    fn write<T: Copy>(&self, offset: u32, value: &T, _summed: bool) -> bool {
        let Some(offset) = bounded(offset) else { return false };
        let at = self.start() + offset;
        if at + size_of::<T>() > self.end() {
            return false;
        }
        // SAFETY: the bytes were just checked to be within the packet, which is ours to write.
        unsafe { *(at as *mut T) = *value };
        true
    }

    #[inline(always)]
    fn replace_checksum(&self, offset: u32, addresses: u32, rest: u32, optional: bool) -> bool {
        let Some(old) = self.read::<u16>(offset) else { return false };
        if optional && old == 0 {
            return true;
        }
        let mut new = checksum::replace(old, checksum::add(addresses, rest));
        if optional && new == 0 {
            new = 0xffff;
        }
        self.write(offset, &new, false)
    }

    #[inline(always)]
    fn set_length(&self, length: u32) -> bool {
        let change = length.wrapping_sub(self.length()) as i32;
        // SAFETY: plain helper.
        unsafe { bpf_xdp_adjust_tail(self.0.ctx, change) == 0 }
    }

    #[inline(always)]
    fn clear(&self, length: u32) -> bool {
        self.set_length(length)
    }

    #[inline(always)]
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller has that much memory there; the helper checks the offset.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn store(&self, offset: u32, from: *const u8, length: u32) -> bool {
        // SAFETY: the caller has that much memory there; the helper checks the offset.
        unsafe { bpf_xdp_store_bytes(self.0.ctx, offset, from.cast_mut().cast(), length) == 0 }
    }

    #[inline(always)]
    fn redirect(&self, ifindex: u32) -> Verdict {
        // SAFETY: plain helper.
        Verdict::Code(unsafe { bpf_redirect(ifindex, 0) } as i32)
    }

    #[inline(always)]
    fn answer(&self) -> Verdict {
        Verdict::Code(XDP_TX as i32)
    }

    #[inline(always)]
    fn code(verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass => XDP_PASS as i32,
            Verdict::Drop => XDP_DROP as i32,
            Verdict::Code(code) => code,
        }
    }
}
