//! A packet with an skb: what tc programs see.
//!
//! Must not know: what is in the packet.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::sk_buff::SkBuff,
};

use super::{Hook, Packet, Verdict, headers::ETHERNET};

/// `TCX_NEXT`, which is `TC_ACT_UNSPEC`: the next program decides, and after the last one the packet goes on.
const NEXT: i32 = -1;

/// `PACKET_HOST`.
const PACKET_HOST: u32 = 0;

/// `skb->tc_index` of a packet that was decided on where it came in: the kernel has no use for it any more (it was that of the traffic
/// control's old classifiers) and keeps it until the packet leaves, through the queue of a neighbour whose address is asked for too.
const DECIDED: u32 = 0x5047;

/// A packet at a device's ingress, or at its egress.
pub(crate) struct Skb {
    skb: SkBuff,
    hook: Hook,
}

impl Skb {
    /// The packet of a context.
    #[inline(always)]
    pub(crate) const fn new(context: *mut __sk_buff, hook: Hook) -> Self {
        Self { skb: SkBuff { skb: context }, hook }
    }

    /// As [`new`](Self::new), for what is declared for packets of each kind.
    #[inline(always)]
    pub(crate) const fn at(context: *mut __sk_buff, hook: Hook) -> Self {
        Self::new(context, hook)
    }
}

impl Packet for Skb {
    const XDP: bool = false;

    #[inline(always)]
    fn hook(&self) -> Hook {
        self.hook
    }

    #[inline(always)]
    fn context(&self) -> *mut core::ffi::c_void {
        self.skb.skb.cast()
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the kernel hands a valid context; tc programs may read this field.
        unsafe { (*self.skb.skb).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the kernel hands a valid context; tc programs may read this field.
        unsafe { (*self.skb.skb).data_end as usize }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.skb.len()
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: the kernel hands a valid context; tc programs may read this field.
        unsafe { (*self.skb.skb).gso_size }
    }

    #[inline(always)]
    fn is_ours(&self) -> bool {
        // SAFETY: the kernel hands a valid context; tc programs may read this field.
        self.is_egress() || unsafe { (*self.skb.skb).pkt_type } == PACKET_HOST
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands a valid context; tc programs may read this field.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn was_decided(&self) -> bool {
        // SAFETY: the kernel hands a valid context; tc programs may read and write this field.
        let index = unsafe { &mut (*self.skb.skb).tc_index };
        if *index == 0 {
            return false;
        }
        let is_ours = *index == DECIDED;
        // Whoever sent it may have said so as well, and the next node is to decide for itself.
        *index = 0;
        is_ours && self.is_egress()
    }

    #[inline(always)]
    fn set_decided(&self) {
        // SAFETY: as above.
        unsafe { (*self.skb.skb).tc_index = DECIDED };
    }

    #[inline(always)]
    fn pull(&self, length: u32) {
        let (readable, whole) = ((self.end() - self.start()) as u32, self.length());
        if readable < length && readable < whole {
            // SAFETY: plain helper. Failing leaves as much readable as there was, which readers check.
            unsafe { bpf_skb_pull_data(self.skb.skb, if length < whole { length } else { whole }) };
        }
    }

    #[inline(always)]
    fn write<T: Copy>(&self, offset: u32, value: &T, summed: bool) -> bool {
        let flags = if summed { u64::from(BPF_F_RECOMPUTE_CSUM) } else { 0 };
        // SAFETY: the helper copies from the value, whose size is given, and checks the offset.
        let code = unsafe {
            bpf_skb_store_bytes(
                self.skb.skb,
                offset,
                core::ptr::from_ref(value).cast_mut().cast(),
                size_of::<T>() as u32,
                flags,
            )
        };
        code == 0
    }

    #[inline(always)]
    fn replace_checksum(&self, offset: u32, addresses: u32, rest: u32, optional: bool) -> bool {
        let skb = self.skb.skb;
        let flags = if optional { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        // SAFETY: plain helpers, which check the offset. Two calls: where the device is still to make the checksum, only the
        // pseudo-header is in it yet, and the second call leaves it alone.
        unsafe {
            (addresses == 0
                || bpf_l4_csum_replace(
                    skb,
                    offset,
                    0,
                    u64::from(addresses),
                    flags | u64::from(BPF_F_PSEUDO_HDR),
                ) == 0)
                && (rest == 0 || bpf_l4_csum_replace(skb, offset, 0, u64::from(rest), flags) == 0)
        }
    }

    #[inline(always)]
    fn set_length(&self, length: u32) -> bool {
        // SAFETY: plain helper.
        unsafe { bpf_skb_change_tail(self.skb.skb, length, 0) == 0 }
    }

    #[inline(always)]
    fn clear(&self, length: u32) -> bool {
        // No helper says "this packet has its checksum". But a checksum that the device is still to make begins somewhere, and the
        // kernel gives up making it once that place was cut off at the front: so more is cut off than the headers of any packet,
        // which is first given that much. (Changing the length makes many packets in one a single one.) Growing in the end makes
        // the kernel forget the sum that a device made over what came.
        const KEPT: u32 = ETHERNET + 40;
        const CUT: u32 = 256;
        const SHORTEST_FRAME: u32 = 60;
        let length = if length > SHORTEST_FRAME { length } else { SHORTEST_FRAME };
        // SAFETY: plain helpers.
        unsafe {
            bpf_skb_change_tail(self.skb.skb, KEPT + CUT, 0) == 0
                && bpf_skb_adjust_room(self.skb.skb, -(CUT as i32), BPF_ADJ_ROOM_MAC, 0) == 0
                && bpf_skb_change_tail(self.skb.skb, length, 0) == 0
        }
    }

    #[inline(always)]
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the caller has that much memory there; the helper checks the offset.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn store(&self, offset: u32, from: *const u8, length: u32) -> bool {
        // SAFETY: the caller has that much memory there; the helper checks the offset.
        unsafe { bpf_skb_store_bytes(self.skb.skb, offset, from.cast(), length, 0) == 0 }
    }

    #[inline(always)]
    fn redirect(&self, ifindex: u32) -> Verdict {
        // SAFETY: plain helper.
        Verdict::Code(unsafe { bpf_redirect(ifindex, 0) } as i32)
    }

    #[inline(always)]
    fn answer(&self) -> Verdict {
        let flags = if self.is_egress() { BPF_F_INGRESS as u64 } else { 0 };
        // SAFETY: plain helper.
        Verdict::Code(unsafe { bpf_redirect(self.ifindex(), flags) } as i32)
    }

    #[inline(always)]
    fn code(verdict: Verdict) -> i32 {
        match verdict {
            Verdict::Pass => NEXT,
            Verdict::Drop => TC_ACT_SHOT as i32,
            Verdict::Code(code) => code,
        }
    }
}
