//! The allocator.
//!
//! jemalloc, because it gives memory back: after a walk over a million files and the kernel's
//! forgetting them, glibc's kept 395 MiB of 405, mimalloc 294 of 372, jemalloc 102 of 308. Only the daemon
//! has the threads for it, and says when: what they may do is what their starter may.
#![expect(unsafe_code, reason = "the settings are found by the name of a symbol")]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What was free for a second is given back.
// SAFETY: jemalloc declares this symbol as `const char *`; a reference to the first byte of a
// static text that ends with NUL is one. Nobody else defines it.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static SETTINGS: &u8 = &b"dirty_decay_ms:1000,muzzy_decay_ms:0\0"[0];

/// Starts threads that give back what is free, also in a process that has fallen idle.
pub fn give_back_in_background() {
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::warn!(%error, "memory is given back only while there is work");
    }
}
