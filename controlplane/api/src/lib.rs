//! The words every component shares: keys, quantities, selectors, statuses.
