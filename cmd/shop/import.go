package main

type importCommands struct{}
