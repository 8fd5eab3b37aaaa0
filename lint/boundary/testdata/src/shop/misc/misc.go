package misc // want `package shop/misc is in no layer`
