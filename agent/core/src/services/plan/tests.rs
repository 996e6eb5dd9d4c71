//! Plans against maps in memory.
