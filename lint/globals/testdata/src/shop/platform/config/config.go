package config

var registry = map[string]int{}

func Set(k string) { registry[k] = 1 }
