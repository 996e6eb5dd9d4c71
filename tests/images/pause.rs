//! The sandbox container of test clusters: holds the pod's namespaces, reaps what is orphaned in a shared pid namespace, and ends on
//! a signal. Static, no dependencies.

use std::ffi::c_int;

unsafe extern "C" {
    fn signal(number: c_int, handler: usize) -> usize;
    fn pause() -> c_int;
    fn wait(status: *mut c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;

extern "C" fn end(_: c_int) {
    // SAFETY: _exit(2) may be called in a signal handler (signal-safety(7)).
    unsafe { _exit(0) }
}

extern "C" fn child(_: c_int) {}

fn main() {
    // SAFETY: the handlers only exit or do nothing; pause(2) and wait(2) with a null pointer touch no memory.
    unsafe {
        signal(SIGINT, end as *const () as usize);
        signal(SIGTERM, end as *const () as usize);
        signal(SIGCHLD, child as *const () as usize);
        loop {
            pause();
            while wait(std::ptr::null_mut()) > 0 {}
        }
    }
}
