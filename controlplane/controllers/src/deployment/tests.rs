//! The plan of a Deployment, by rows and against a simulated cluster.
