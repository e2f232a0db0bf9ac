"""What commands show: views of the state that decide nothing and write nothing."""
