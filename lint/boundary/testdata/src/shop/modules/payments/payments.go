package payments

var X, Y int
