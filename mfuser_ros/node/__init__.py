"""The rclpy edge: the node, its parameters and QoS, messages to arrays and back, diagnostics."""
