//! The stages of packet programs: functions that the verifier checks each on its own, once for any argument, so that what it has to
//! follow is the sum of the stages and not their product. They take the context and numbers, and find the rest in [`Work`].
//!
//! Must not know: what the stages do.
//!
//! [`Work`]: crate::work::Work

use core::arch::asm;

use aya_ebpf::bindings::{__sk_buff, xdp_md};

use crate::{
    flow,
    nat::{self, Reserved},
    packet::{Hook, Packet, Skb, Verdict, Xdp, fragment, neighbour, reject},
    path::{self, Step},
    service::{self, Choice, Side},
    work::{Work, work},
    xdp,
};

/// A packet whose flow is decided on in stages that are functions of their own.
pub(crate) trait Decided: Packet {
    /// [`flow::step`].
    fn step(&self) -> Step;
    /// [`nat::track`].
    fn track(&self, anew: bool) -> u32;
    /// [`nat::is_taken`].
    fn is_taken(&self) -> bool;
    /// Whether the packet can be sent where `work.state` says, as far as that is asked before anything is noted of it.
    fn finds_way(&self, work: &mut Work) -> bool;
}

/// What tcx programs do with a packet then.
pub(crate) trait Stages: Decided {
    /// [`path::leave`].
    fn leave(&self) -> Verdict;
    /// [`path::translate`].
    fn translate(&self) -> Verdict;
    /// [`path::hand_on`].
    fn hand_on(&self) -> Verdict;
    /// [`path::refuse`].
    fn refuse(&self) -> Verdict;
    /// [`path::error`].
    fn error(&self) -> Verdict;
    /// [`neighbour::answer`].
    fn neighbour(&self) -> Verdict;
    /// [`reject::too_long`].
    fn too_long(&self, mtu: u32) -> Verdict;
    /// [`path::expired`].
    fn expired(&self) -> Verdict;
}

/// What XDP programs do with a packet then.
pub(crate) trait Early: Decided {
    /// [`xdp::short_way_v6`].
    fn short_way_v6(&self) -> Option<Verdict>;
    /// [`xdp::leave`].
    fn leave(&self) -> Verdict;
    /// [`xdp::send`].
    fn send(&self) -> Verdict;
    /// [`xdp::reject`].
    fn reject(&self, step: Step) -> Verdict;
}

/// An argument, as a hook. Arguments that a function has no use for the compiler leaves out of the calls, and the verifier wants all
/// of them: here is a use.
#[inline(always)]
fn given(hook: u32) -> Hook {
    let mut number = u64::from(hook);
    // SAFETY: arithmetic on a register.
    unsafe { asm!("{0} &= 3", inout(reg) number, options(nomem, nostack)) };
    Hook::of(number as u32)
}

/// Declares the first stages of one kind of packet: each is a function of its own name, because the verifier tells them apart by that.
macro_rules! decided {
    ($packet:ty, $context:ty, $step:ident, $track:ident, $is_taken:ident, $finds_way:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $step(context: *mut $context, hook: u32) -> u32 {
            flow::step(&<$packet>::at(context, given(hook))).0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $track(context: *mut $context, hook: u32, anew: u32) -> u32 {
            nat::track(&<$packet>::at(context, given(hook)), anew != 0)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $is_taken(context: *mut $context, hook: u32) -> u32 {
            u32::from(nat::is_taken(&<$packet>::at(context, given(hook))))
        }

        impl Decided for $packet {
            #[inline(always)]
            fn step(&self) -> Step {
                Step($step(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn track(&self, anew: bool) -> u32 {
                $track(self.context().cast(), self.hook().number(), u32::from(anew))
            }

            #[inline(always)]
            fn is_taken(&self) -> bool {
                $is_taken(self.context().cast(), self.hook().number()) != 0
            }

            #[inline(always)]
            fn finds_way(&self, work: &mut Work) -> bool {
                $finds_way(self, work)
            }
        }
    };
}

/// Declares the other stages of packets with an skb.
macro_rules! stages {
    ($packet:ty, $context:ty, $leave:ident, $translate:ident, $hand_on:ident, $refuse:ident, $error:ident, $too_long:ident, $expired:ident, $neighbour:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $leave(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(path::leave(&<$packet>::new(context, given(hook))))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $translate(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(path::translate(&<$packet>::new(context, given(hook))))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $hand_on(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(path::hand_on(&<$packet>::new(context, given(hook))))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $refuse(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(path::refuse(&<$packet>::new(context, given(hook))))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $error(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(path::error(&<$packet>::new(context, given(hook))))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $too_long(context: *mut $context, hook: u32, mtu: u32) -> i32 {
            let Some(work) = work() else { return <$packet>::code(Verdict::Drop) };
            <$packet>::code(reject::too_long(&<$packet>::new(context, given(hook)), &work.parsed, mtu))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $expired(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(path::expired(&<$packet>::new(context, given(hook))))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $neighbour(context: *mut $context, hook: u32) -> i32 {
            <$packet>::code(neighbour::answer(&<$packet>::new(context, given(hook))))
        }

        impl Stages for $packet {
            #[inline(always)]
            fn leave(&self) -> Verdict {
                Verdict::Code($leave(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn translate(&self) -> Verdict {
                Verdict::Code($translate(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn hand_on(&self) -> Verdict {
                Verdict::Code($hand_on(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn refuse(&self) -> Verdict {
                Verdict::Code($refuse(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn error(&self) -> Verdict {
                Verdict::Code($error(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn neighbour(&self) -> Verdict {
                Verdict::Code($neighbour(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn expired(&self) -> Verdict {
                Verdict::Code($expired(self.context().cast(), self.hook().number()))
            }

            #[inline(always)]
            fn too_long(&self, mtu: u32) -> Verdict {
                Verdict::Code($too_long(self.context().cast(), self.hook().number(), mtu))
            }
        }
    };
}

// The kernel knows a way for whatever has none, and waits for neighbours.
decided!(Skb, __sk_buff, skb_step, skb_track, skb_is_taken, |_: &Skb, _: &mut Work| true);

decided!(Xdp, xdp_md, xdp_step, xdp_track, xdp_is_taken, xdp::finds_way);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_short_way_v6(context: *mut xdp_md) -> i32 {
    xdp::short_way_v6(&Xdp::new(context))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_leave() -> i32 {
    Xdp::code(xdp::leave())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_send(context: *mut xdp_md) -> i32 {
    Xdp::code(xdp::send(&Xdp::new(context)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xdp_reject(context: *mut xdp_md, step: u32) -> i32 {
    Xdp::code(xdp::reject(&Xdp::new(context), Step(step)))
}

impl Early for Xdp {
    #[inline(always)]
    fn short_way_v6(&self) -> Option<Verdict> {
        match xdp_short_way_v6(self.context().cast()) {
            xdp::NOT_KNOWN => None,
            code => Some(Verdict::Code(code)),
        }
    }

    #[inline(always)]
    fn leave(&self) -> Verdict {
        Verdict::Code(xdp_leave())
    }

    #[inline(always)]
    fn send(&self) -> Verdict {
        Verdict::Code(xdp_send(self.context().cast()))
    }

    #[inline(always)]
    fn reject(&self, step: Step) -> Verdict {
        Verdict::Code(xdp_reject(self.context().cast(), step.0))
    }
}

stages!(
    Skb,
    __sk_buff,
    skb_leave,
    skb_translate,
    skb_hand_on,
    skb_refuse,
    skb_error,
    skb_too_long,
    skb_expired,
    skb_neighbour
);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_service(side: u32) -> u32 {
    u32::from(service::find(if side == 0 { Side::Inside } else { Side::Outside }))
}

/// [`service::find`].
#[inline(always)]
pub(crate) fn find(side: Side) -> bool {
    find_service(u32::from(side == Side::Outside)) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_unchanged_service() -> u32 {
    u32::from(service::is_unchanged())
}

/// [`service::is_unchanged`].
#[inline(always)]
pub(crate) fn is_unchanged() -> bool {
    is_unchanged_service() != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn keeps_backend(side: u32) -> u32 {
    u32::from(service::keeps(if side == 0 { Side::Inside } else { Side::Outside }))
}

/// [`service::keeps`].
#[inline(always)]
pub(crate) fn keeps(side: Side) -> bool {
    keeps_backend(u32::from(side == Side::Outside)) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_backend(side: u32) -> u32 {
    service::choose(if side == 0 { Side::Inside } else { Side::Outside }).0
}

/// [`service::choose`].
#[inline(always)]
pub(crate) fn choose(side: Side) -> Choice {
    Choice(choose_backend(u32::from(side == Side::Outside)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reserve_port() -> u32 {
    nat::reserve().0
}

/// [`nat::reserve`].
#[inline(always)]
pub(crate) fn reserve() -> Reserved {
    Reserved(reserve_port())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_fragments() -> u32 {
    u32::from(work().is_some_and(|work| fragment::note_destination(&work.tuple.destination)))
}

/// [`fragment::note_destination`], of the packet's destination.
#[inline(always)]
pub(crate) fn note_destination() -> bool {
    note_fragments() != 0
}
